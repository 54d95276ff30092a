// Makes pages live; each is complete without this file.
// - Parts marked data-live are fetched again when the poller tells of an event (data-stream),
//   now and then for the readings, and often while something marked data-open is under way.
//   A part stays as it is while somebody selects text in it or points at one of its charts;
//   opened details stay open, the focus stays where it was, and a log stays at its end.
// - Links marked data-ask show the form behind them as a dialog.
// - A log (data-follow) goes on with the lines that follow; search narrows it as one types.
// - Lines for a shell get a button that copies them.
// - Charts tell the values where somebody points.
(() => {
  "use strict";
  const all = (css, root = document) => [...root.querySelectorAll(css)];
  const make = (name, text, props) => Object.assign(document.createElement(name), { textContent: text }, props);

  // Dialogs.
  document.addEventListener("click", async (click) => {
    const link = click.target.closest?.("a[data-ask]");
    if (!link || click.ctrlKey || click.metaKey || click.shiftKey || !("HTMLDialogElement" in window)) return;
    click.preventDefault();
    try {
      const answer = await fetch(link.href, { redirect: "error", signal: AbortSignal.timeout(10000) });
      const box = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("ask");
      if (!answer.ok || !box) throw new Error("no form");
      const dialog = make("dialog");
      const title = box.querySelector("h1");
      title.replaceWith(make("h2", title.textContent, { id: "ask-title" }));
      dialog.setAttribute("aria-labelledby", "ask-title");
      dialog.append(box);
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog || event.target.closest("[data-close]")) {
          event.preventDefault();
          dialog.close();
        }
      });
      dialog.addEventListener("close", () => { dialog.remove(); link.isConnected && link.focus(); });
      dialog.addEventListener("submit", () => { for (const button of all("button", dialog)) button.setAttribute("aria-busy", "true"); });
      document.body.append(dialog);
      copyButtons(dialog);
      dialog.showModal();
    } catch {
      location.href = link.href;
    }
  });

  const copyButtons = (root) => {
    for (const pre of all(".shell pre:not([data-copy])", root)) {
      pre.dataset.copy = "";
      const button = make("button", "Copy", { type: "button", className: "copy" });
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(pre.textContent.trim());
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(pre);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      pre.after(button);
    }
  };

  // Charts.
  const write = {
    percent: (value) => `${+(value * 100).toPrecision(3)} %`,
    bytes: (value) => {
      const power = Math.min(5, Math.max(0, Math.floor(Math.log2(value || 1) / 10)));
      return `${+(value / 1024 ** power).toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
    },
    seconds: (value) => value < 1 ? `${+(value * 1000).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`,
    rate: (value) => `${+value.toPrecision(3)} /s`,
  };
  // The height of a line at a place, both in thousandths; nothing within a gap.
  const height = (path, at) => {
    let x = 0, y = 0, best = null, near = 12;
    for (const [, letter, right, down] of path.matchAll(/([Ml])(-?\d+) ?(-?\d+)/g)) {
      [x, y] = letter === "M" ? [+right, +down] : [x + +right, y + +down];
      if (Math.abs(x - at) < near) { near = Math.abs(x - at); best = y; }
    }
    return best;
  };
  const unpoint = () => { for (const node of all(".cursor, .tip")) node.remove(); };
  document.addEventListener("pointermove", (move) => {
    const plot = move.target.closest?.(".plot");
    unpoint();
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    const at = (move.clientX - box.left) / box.width;
    if (at < 0 || at > 1) return;
    const { from, to, bottom, top, word } = plot.dataset;
    const time = new Date(+from + at * (to - from)).toISOString();
    const lines = [to - from > 9e7 ? time.slice(0, 16).replace("T", " ") : time.slice(11, 19)];
    const labels = all(".legend bdi", plot.parentElement).map((node) => node.textContent);
    all("svg .line", plot).forEach((line, index) => {
      const y = height(line.getAttribute("d"), at * 1000);
      if (y === null) return;
      const value = +bottom + (top - bottom) * (1 - y / 1000);
      lines.push(`${labels[index] ? `${labels[index]}  ` : ""}${(write[word] ?? ((it) => +it.toPrecision(3)))(value)}`);
    });
    if (lines.length === 1) lines.push("no reading");
    for (const other of all(".plot")) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      for (const [name, value] of [["class", "cursor"], ["x1", `${at * 100}%`], ["x2", `${at * 100}%`], ["y1", 18], ["y2", 148]]) line.setAttribute(name, value);
      other.append(line);
    }
    const tip = make("p", lines.join("\n"), { className: "tip" });
    tip.setAttribute("aria-hidden", "true");
    const around = plot.parentElement.getBoundingClientRect();
    tip.style[at > 0.6 ? "right" : "left"] = `${12 + (at > 0.6 ? around.right - move.clientX : move.clientX - around.left)}px`;
    plot.parentElement.append(tip);
  });
  document.addEventListener("pointerleave", unpoint);

  const toEnds = () => { for (const log of all("[data-end]")) log.scrollTop = log.scrollHeight; };
  copyButtons(document);
  toEnds();

  // A log that goes on.
  const state = document.querySelector("[data-follow]");
  if (state) return followLog(state);

  function followLog(state) {
    const most = 5000;
    const list = document.getElementById("log");
    const grep = document.querySelector("[data-grep]");
    const button = make("button", "Pause", { type: "button" });
    state.before(button);
    let paused = false, held = [];
    const fits = (line) => line.toLowerCase().includes(grep.value.toLowerCase());
    const atEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const add = (lines) => {
      const stay = atEnd();
      list.append(...lines.map(({ line, stream, instance_id: instance }) => {
        const item = make("li", "", { className: stream, hidden: !fits(line) });
        if ("several" in list.dataset) item.append(make("i", instance));
        item.append(make("bdi", line));
        return item;
      }));
      while (list.children.length > most) list.firstChild.remove();
      document.getElementById("log-none")?.remove();
      if (stay) list.scrollTop = list.scrollHeight;
    };
    const tell = (node, text) => { if (node.textContent !== text) node.textContent = text; };
    // The state is read out; how many lines wait is not.
    const say = () => {
      tell(state, paused ? "paused" : live ? "live" : "connecting …");
      tell(button, !paused ? "Pause" : held.length ? `Go on, ${held.length} new lines` : "Go on");
    };
    let live = false;
    const take = (message) => {
      const line = JSON.parse(message.data);
      if (!paused) return add([line]);
      held.push(line);
      if (held.length > most) held.shift();
      say();
    };
    const source = new EventSource(state.dataset.follow);
    source.addEventListener("open", () => { live = true; say(); });
    source.addEventListener("error", () => { live = false; say(); });
    for (const kind of ["out", "err", "message"]) source.addEventListener(kind, take);
    button.addEventListener("click", () => {
      paused = !paused;
      if (!paused) { add(held); held = []; }
      say();
    });
    grep.addEventListener("input", () => { for (const item of list.children) item.hidden = !fits(item.lastChild.textContent); });
    list.scrollTop = list.scrollHeight;
    say();
  }

  // Parts that stay fresh.
  const main = document.getElementById("main");
  const parts = () => all("[data-live][id]");
  const place = document.getElementById("as-of");
  if (!place || !main.dataset.stream || parts().length === 0) return;

  const button = make("button", "", { type: "button" });
  const trouble = make("span");
  trouble.setAttribute("role", "status");
  place.append(button);
  place.before(trouble);

  let paused = sessionStorage.getItem("paused") === "yes";
  let busy = false, again = false, timer, source, newest = 0;
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
    old.toggleAttribute("data-open", fresh.hasAttribute("data-open"));
    if (old.innerHTML === fresh.innerHTML) return;
    const selection = getSelection();
    if (!selection.isCollapsed && old.contains(selection.anchorNode)) return;
    if (old.querySelector(".tip")) return;
    const opened = all("details[open]", old).map((node) => node.closest("li[id], tr[id]")?.id ?? path(node, old));
    const focused = old.contains(document.activeElement) && document.activeElement;
    const href = focused && focused.getAttribute("href");
    const way = focused && path(focused, old);
    old.replaceChildren(...fresh.childNodes);
    for (const where of opened) {
      const node = typeof where === "string" ? document.getElementById(where)?.querySelector("details") : follow(where, old);
      if (node && node.localName === "details") node.open = true;
    }
    if (focused) {
      const same = href && all("a[href]", old).find((link) => link.getAttribute("href") === href);
      (same || follow(way, old))?.focus?.({ preventScroll: true });
    }
    copyButtons(old);
    toEnds();
  };

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, {
        redirect: "error", cache: "no-store", signal: AbortSignal.timeout(10000), headers: { "X-Live": newest },
      });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (paused) return;
      // A part that came or went changes the page's build: then all of it is put anew.
      const same = page.querySelectorAll("[data-live][id]").length === parts().length
        && parts().every((part) => page.getElementById(part.id));
      if (!same) replace(main, page.getElementById("main"));
      else for (const part of parts()) replace(part, page.getElementById(part.id));
      document.title = page.title;
      const [old, now] = [place, page.getElementById("as-of")].map((p) => p?.querySelector("time"));
      if (old && now) old.replaceWith(now);
      if (trouble.textContent) trouble.textContent = "";
    } catch (error) {
      trouble.textContent = `Not refreshed (${error.message}).`;
    }
  };

  const turn = async () => {
    if (busy) { again = true; return; }
    clearTimeout(timer);
    if (paused || document.hidden) return;
    busy = true;
    await refresh();
    busy = false;
    // Readings change without an event, with every poll.
    const wait = again ? 300 : document.querySelector("[data-open]") ? 1000 : 10000;
    again = false;
    clearTimeout(timer);
    timer = setTimeout(turn, wait);
  };
  const soon = () => {
    clearTimeout(timer);
    // Not everybody at the same moment.
    timer = setTimeout(turn, 50 + Math.random() * 250);
  };

  const listen = () => {
    source?.close();
    source = null;
    if (paused || document.hidden) return;
    source = new EventSource(main.dataset.stream);
    let broke = false;
    source.addEventListener("message", (message) => { newest = Math.max(newest, +message.lastEventId || 0); soon(); });
    source.addEventListener("error", () => { broke = true; });
    source.addEventListener("open", () => { if (broke) soon(); broke = false; });
  };
  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    label();
    listen();
    turn();
  });
  // A browser has few connections for a site: what nobody looks at gives its own back.
  document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden) turn(); });
  label();
  listen();
  timer = setTimeout(turn, document.querySelector("[data-open]") ? 1000 : 10000);
})();
