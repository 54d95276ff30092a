// A web server for PM2's cluster mode; every answer names the instance.
const http = require('http');

http
  .createServer((request, response) => response.end(`${process.env.NODE_APP_INSTANCE}\n`))
  .listen(Number(process.env.PORT), '127.0.0.1');
