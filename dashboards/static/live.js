// Keeps a page fresh: fetches it again every few seconds and replaces its parts marked
// data-live. The page is complete without this file. A part stays as it is while somebody
// selects text in it; opened details stay open, and the focus stays where it was.
(() => {
  "use strict";
  const every = 5000;
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  const place = document.getElementById("as-of");
  if (!place || parts().length === 0) return;

  const button = document.createElement("button");
  button.type = "button";
  const trouble = document.createElement("span");
  trouble.setAttribute("role", "status");
  place.append(button);
  place.before(trouble);

  let paused = sessionStorage.getItem("paused") === "yes";
  let busy = false;
  let timer;
  const label = () => { button.textContent = paused ? "Go on refreshing" : "Pause refreshing"; };

  const path = (node, root) => {
    const steps = [];
    for (; node && node !== root; node = node.parentElement) {
      steps.unshift([...node.parentElement.children].indexOf(node));
    }
    return steps;
  };
  const follow = (steps, root) => steps.reduce((node, step) => node && node.children[step], root);

  const replace = (old, fresh) => {
    if (old.innerHTML === fresh.innerHTML) return;
    const selection = getSelection();
    if (!selection.isCollapsed && old.contains(selection.anchorNode)) return;
    const opened = [...old.querySelectorAll("details[open]")].map((node) =>
      node.closest("li[id], tr[id]")?.id ?? path(node, old));
    const focused = old.contains(document.activeElement) && document.activeElement;
    const href = focused && focused.getAttribute("href");
    const way = focused && path(focused, old);
    old.replaceChildren(...fresh.childNodes);
    for (const where of opened) {
      const node = typeof where === "string"
        ? document.getElementById(where)?.querySelector("details") : follow(where, old);
      if (node && node.localName === "details") node.open = true;
    }
    if (focused) {
      const same = href && [...old.querySelectorAll("a[href]")]
        .find((link) => link.getAttribute("href") === href);
      (same || follow(way, old))?.focus?.({ preventScroll: true });
    }
  };

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, {
        redirect: "error", cache: "no-store", signal: AbortSignal.timeout(10000),
      });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      // A part that came or went changes the page's build: then all of it is loaded anew.
      const fresh = page.querySelectorAll("[data-live][id]");
      const same = fresh.length === parts().length
        && parts().every((part) => page.getElementById(part.id));
      if (!same) return location.reload();
      for (const part of parts()) replace(part, page.getElementById(part.id));
      document.title = page.title;
      const [old, now] = [place, page.getElementById("as-of")].map((p) => p?.querySelector("time"));
      if (old && now) old.replaceWith(now);
      trouble.textContent = "";
    } catch (error) {
      trouble.textContent = `Not refreshed (${error.message}).`;
    }
  };

  const turn = async () => {
    if (busy) return;
    clearTimeout(timer);
    if (!paused && !document.hidden) {
      busy = true;
      await refresh();
      busy = false;
    }
    if (!paused) timer = setTimeout(turn, every);
  };
  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    label();
    turn();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  label();
  timer = setTimeout(turn, every);
})();
