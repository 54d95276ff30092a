// Puts a pipe, which nobody writes to, in place of its logs, and ends.
const { execFileSync } = require('child_process');
const { unlinkSync } = require('fs');

for (const log of [process.env.pm_err_log_path, process.env.pm_out_log_path]) {
  unlinkSync(log);
  execFileSync('mkfifo', [log]);
}
process.exit(1);
