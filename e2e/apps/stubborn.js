// Ignores SIGINT and SIGTERM: only SIGKILL ends it.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => {});
setInterval(() => {}, 1000);
