// Says which run it is on stderr, and ends with code 7.
console.error(`the words of ${process.pid}`);
setTimeout(() => process.exit(7), 100);
