// Starts a child that uses CPU and MEMORY_MIB of memory; itself idle and small.
const { spawn } = require('child_process');

const child = `
  const held = Buffer.alloc(${Number(process.env.MEMORY_MIB || 64)} << 20, 1);
  const step = () => {
    const end = Date.now() + 20;
    while (Date.now() < end) held[0] += 1;
    setTimeout(step, 30);
  };
  step();
`;
spawn(process.execPath, ['-e', child], { stdio: 'ignore' });
setInterval(() => {}, 1000);
