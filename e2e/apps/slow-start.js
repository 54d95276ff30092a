// Listens on PORT, and tells PM2 that it is ready, only after START_MS.
const http = require('http');

setTimeout(() => {
  http
    .createServer((request, response) => response.end('at last\n'))
    .listen(Number(process.env.PORT || 0), '127.0.0.1', () => {
      if (process.send) process.send('ready');
    });
}, Number(process.env.START_MS || 2000));
