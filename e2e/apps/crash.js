// A web server on PORT that fails on demand: /throw throws, /exit?code=3 exits with 3.
const http = require('http');

http
  .createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname === '/throw') {
      response.end('throwing\n');
      setImmediate(() => {
        throw new TypeError('asked to throw');
      });
    } else if (url.pathname === '/exit') {
      response.end('exiting\n', () => process.exit(Number(url.searchParams.get('code'))));
    } else {
      response.end('well\n');
    }
  })
  .listen(Number(process.env.PORT), '127.0.0.1');
