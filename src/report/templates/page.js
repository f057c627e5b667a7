"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  } catch { /* the browser keeps nothing for files */ }

  const byId = (id) => document.getElementById(id);

  function setUpTheme() {
    const button = byId("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
    const label = () => { byId("theme-name").textContent = isDark() ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
      label();
    });
    system.addEventListener("change", label);
    label();
  }

  function setUpContents() {
    const links = new Map();
    for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const link = links.get(entry.target.id);
        if (!entry.isIntersecting) link.removeAttribute("aria-current");
        else link.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -79% 0px" });
    for (const id of links.keys()) if (byId(id)) watcher.observe(byId(id));
  }

  function setUpMatrix(box, data, pairs) {
    const range = box.querySelector("input[type=range]");
    const list = box.querySelector("select");
    const readout = box.querySelector(".readout");
    const cells = [...box.querySelectorAll("[data-cell]")];
    let place = range ? Number(range.value) : 0;
    let protocol = list ? list.selectedIndex : 0;
    let shown = null;
    let shownBefore = null;
    let touched = false;
    const about = (cell) => data.cells[Number(cell.dataset.cell)];
    const stateOf = (cell) => {
      const states = about(cell).states[protocol];
      return states[Math.min(place, states.length - 1)];
    };

    function paint() {
      for (const cell of cells) {
        const state = stateOf(cell);
        cell.classList.toggle("blank", !state.fill);
        cell.style.setProperty("--fill", state.fill || "");
        cell.style.setProperty("--on-fill", state.ink || "");
        cell.querySelector(".count").hidden = !state.count;
        cell.querySelector(".counts").textContent = state.count || "";
        cell.querySelector(".rate").textContent = state.rate;
      }
      box.querySelector(".protocol").textContent = data.protocols[protocol];
      box.querySelector(".explained").textContent = data.explained[protocol];
      if (!range) return;
      const words = data.budgets[place];
      range.setAttribute("aria-valuetext", words);
      for (const part of box.querySelectorAll("output, .budget")) part.textContent = words;
    }

    function tell(cell) {
      shown = cell;
      const it = about(cell);
      const state = stateOf(cell);
      const head = document.createElement("strong");
      head.textContent = it.clean
        ? `Clean images shown to ${it.target}: `
        : `${data.attack} made on ${it.source}, shown to ${it.target}` +
          `${it.white_box ? " (white box)" : ""}, budget ${data.budgets[place]}, ` +
          `protocol ${data.protocols[protocol]}: `;
      const what = it.clean ? "" : ` ${data.counted}`;
      const rate = it.clean ? "" : ` ${data.rate}`;
      const words = state.count
        ? `${state.count}${what} = ${state.rate}${rate}` +
          `${state.interval ? `, 95\u00a0% interval ${state.interval}` : ""}. `
        : state.rate === "not run" ? "not run. " : "no image in the denominator. ";
      readout.classList.add("told");
      readout.replaceChildren(head, words);
      const spot = cell.querySelector("a.spot");
      if (!spot) return;
      const link = document.createElement("a");
      link.href = spot.hash;
      link.textContent = "Go to this pair";
      readout.append(link);
    }

    for (const cell of cells) {
      const spot = cell.querySelector(".spot");
      spot.addEventListener("pointerenter", (event) => {
        if (event.pointerType === "mouse") tell(cell);
      });
      spot.addEventListener("pointerdown", (event) => {
        touched = event.pointerType !== "mouse";
        shownBefore = shown;
      });
      spot.addEventListener("keydown", () => { touched = false; });
      spot.addEventListener("focus", () => tell(cell));
      spot.addEventListener("click", (event) => {
        // The first tap tells; the second, like a click or Enter, follows the link.
        if (touched && shownBefore !== cell) event.preventDefault();
        tell(cell);
        if (spot.hash) pairs.choose(spot.hash.slice(1), true);
      });
    }
    const repaint = () => {
      paint();
      if (shown) tell(shown);
    };
    const go = (words) => {
      const at = data.budgets.indexOf(words);
      if (at < 0 || at === place || !range) return;
      place = at;
      range.value = String(at);
      repaint();
    };
    const count = (name) => {
      const at = data.protocols.indexOf(name);
      if (at < 0 || at === protocol || !list) return;
      protocol = at;
      list.selectedIndex = at;
      repaint();
    };
    if (range) {
      range.addEventListener("input", () => {
        const words = data.budgets[Number(range.value)];
        for (const other of matrices) other.go(words);
      });
    }
    if (list) {
      list.addEventListener("change", () => {
        const name = data.protocols[list.selectedIndex];
        for (const other of matrices) other.count(name);
      });
    }
    return { go, count };
  }
  const matrices = [];

  function setUpPairs(data) {
    if (!data.length) return { choose() {} };
    const lists = { attack: byId("pick-attack"), source: byId("pick-source"), target: byId("pick-target") };
    const names = ["attack", "source", "target"];
    let current = null;

    function fill(list, values, value) {
      list.replaceChildren(...values.map((word) => {
        const option = document.createElement("option");
        option.value = option.textContent = word;
        return option;
      }));
      list.value = value;
    }

    function choose(id, address) {
      const pair = data.find((one) => one.id === id);
      if (!pair) return false;
      if (current) byId(current.id).classList.remove("chosen");
      current = pair;
      byId(id).classList.add("chosen");
      let left = data;
      for (const name of names) {
        fill(lists[name], [...new Set(left.map((one) => one[name]))], pair[name]);
        left = left.filter((one) => one[name] === pair[name]);
      }
      const at = data.indexOf(pair);
      byId("place").textContent = `Pair ${at + 1} of ${data.length}`;
      byId("previous").disabled = at === 0;
      byId("next").disabled = at === data.length - 1;
      for (const spot of document.querySelectorAll("a.spot")) {
        if (spot.hash === `#${id}`) spot.setAttribute("aria-current", "true");
        else spot.removeAttribute("aria-current");
      }
      if (address) {
        try { history.replaceState(null, "", `#${id}`); } catch { /* not for this address */ }
      }
      return true;
    }

    function pick() {
      // A list offers what goes with the lists before it; those after keep their choice if they can.
      let left = data;
      for (const name of names) {
        const fitting = left.filter((one) => one[name] === lists[name].value);
        if (fitting.length) left = fitting;
      }
      choose(left[0].id, true);
    }

    function step(by) {
      const button = byId(by < 0 ? "previous" : "next");
      const next = data[data.indexOf(current) + by];
      if (next) choose(next.id, true);
      // A disabled button loses the focus.
      if (button.disabled) byId(by < 0 ? "next" : "previous").focus();
    }

    function followAddress() {
      let id = location.hash.slice(1);
      try { id = decodeURIComponent(id); } catch { /* as it stands */ }
      const target = byId(id);
      const pair = target && target.closest(".pair");
      if (!pair) return false;
      choose(pair.id, false);
      target.scrollIntoView();
      target.focus({ preventScroll: true });
      return true;
    }

    for (const name of names) lists[name].addEventListener("change", pick);
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    addEventListener("hashchange", followAddress);
    if (!followAddress()) choose(data[0].id, false);
    return { choose };
  }

  function setUpBoxes() {
    // Only what scrolls sideways or down needs to be reached with the keyboard.
    const scrolls = (box) =>
      box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    const watcher = new ResizeObserver((entries) => {
      for (const { target } of entries) target.tabIndex = scrolls(target) ? 0 : -1;
    });
    for (const box of document.querySelectorAll(".scroll, .canvas")) watcher.observe(box);
  }

  function setUpPrinting() {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details:not([open])")];
      for (const details of opened) details.open = true;
    });
    addEventListener("afterprint", () => {
      for (const details of opened) details.open = false;
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    const data = JSON.parse(byId("page-data").textContent);
    const pairs = setUpPairs(data.pairs);
    document.querySelectorAll("[data-matrix]").forEach((box, number) => {
      matrices.push(setUpMatrix(box, data.matrices[number], pairs));
    });
    setUpTheme();
    setUpContents();
    setUpBoxes();
    setUpPrinting();
  });
})();
