// Uses about two fifths of a core.
const step = () => {
  const end = Date.now() + 20;
  while (Date.now() < end);
  setTimeout(step, 30);
};
step();
