// Holds secrets in its environment and arguments, and says nothing of them.
setInterval(() => {}, 1000);
