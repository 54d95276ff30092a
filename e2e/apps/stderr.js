// Writes a numbered line to stderr ten times a second, and one to stdout now and then.
let number = 0;
setInterval(() => {
  number += 1;
  console.error(`error line ${number}`);
  if (number % 10 === 0) console.log(`line ${number}`);
}, 100);
