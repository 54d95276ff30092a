// A web server on PORT (0: any), with /health. Ends on SIGINT and SIGTERM.
const http = require('http');

const server = http.createServer((request, response) => {
  if (request.url === '/health') {
    response.setHeader('Content-Type', 'application/json');
    return response.end(JSON.stringify({ status: 'healthy', pid: process.pid }));
  }
  return response.end('hello\n');
});
server.listen(Number(process.env.PORT || 0), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
