// Reports a metric of its own, as @pm2/io does for an application.
let value = 0;
setInterval(() => {
  value += 1;
  process.send({ type: 'axm:monitor', data: { 'Jobs done': { value, type: 'custom', unit: 'jobs' } } });
}, 200);
