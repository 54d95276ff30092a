// Ignores SIGINT and SIGTERM: only SIGKILL ends it. Says so once it does.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => {});
console.log('stubborn');
setInterval(() => {}, 1000);
