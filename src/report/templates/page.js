// One selection drives the page: the address mirrors it, `choose` alone changes it, and renderers are
// functions of the data and the selection. The script looks numbers up and formats them.
const $ = (id) => document.getElementById(id);

/** Unpack a deflated block of the page. */
async function unpack(name) {
  const packed = Uint8Array.from(atob($(`block-${name}`).textContent.trim()), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const textOf = async (name) => new TextDecoder().decode(await unpack(name));

const data = JSON.parse(await textOf("page"));
const axes = data.axes;
const placesOf = (names) => new Map(names.map((name, place) => [name, place]));
const places = axes && Object.fromEntries(Object.entries(axes).map(([name, its]) => [name, placesOf(its)]));
const several = (axis) => axes[axis].length > 1;
const pairNames = new Map((data.pairs ?? []).map(([, source, target]) => [`${source}>${target}`, [source, target]]));
const views = [...(axes ? [["results", "Results"], ["images", "Images"], ["why", "Why"]] : []),
  ["data", "Data"], ["method", "Method"]];
const known = axes && {
  attack: axes.attack, source: axes.source, target: axes.target, defence: axes.defence,
  protocol: axes.protocol, eps: axes.eps_255.slice(1), shown: ["fooled", "correct"],
  pair: [...pairNames.keys(), ""], view: views.map(([name]) => name),
};
const first = { view: "data", ...data.first, pair: "", image: null };
let selection = { ...first };

/** Make an element; all texts are text nodes, whatever they hold. */
function el(tag, attributes = {}, ...children) {
  const made = tag === "svg" || tag === "path" ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") made.addEventListener("click", value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((one) => one !== undefined && one !== null && one !== false));
  return made;
}

const nameOf = (control) => control.dataset.value ?? control.dataset.pair
  ?? (control.name || control.getAttribute("aria-label") || control.textContent);

/** Replace what a box holds; the focus stays on its control of the same name. */
function fill(box, ...children) {
  const old = box.contains(document.activeElement) ? document.activeElement : null;
  box.replaceChildren(...children);
  if (!old || old.isConnected) return;
  const controls = [...box.querySelectorAll("a, button, select, input, summary")];
  const again = controls.find((one) => one.tagName === old.tagName && nameOf(one) === nameOf(old));
  (again?.disabled ? again.closest(".row")?.querySelector("button:not(:disabled)") : again)?.focus();
}

/** Format a number with decimals; an exact half goes to the even digit, as in the terminal and in tables. */
function fixed(number, digits) {
  const up = number.toFixed(digits);
  const half = Math.abs(number * 2 ** (digits + 1)) % 2 === 1;
  return half && Number(up.at(-1)) % 2 ? (number - Math.sign(number) * 1e-9).toFixed(digits) : up;
}
const percent = (share, digits = 1) => (share === null || share === undefined ? "n/a" : fixed(100 * share, digits)
  .replace(/^-(?=[0.]+$)/, ""));
const count = (number) => (Number.isInteger(number) ? number.toLocaleString("en") : fixed(Number(number), 1));
const budget = (eps) => `${Number(eps.toPrecision(6))}/255`;
const partsOf = (name) => String(name).split(/(?<=[_/.-])/); // names break between them
const broken = (name) => partsOf(name).join("\u200b");
const inParts = (name) => partsOf(name).map((part) => el("span", {}, part));
const words = (protocol) => protocol.replace("_", " ");
const minus = (text) => String(text).replace("-", "\u2212");

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  selection = { ...first };
  for (const [name, options] of Object.entries(known ?? { view: views.map(([one]) => one) })) {
    const found = options.find((one) => String(one) === parts.get(name));
    if (found !== undefined) selection[name] = found;
  }
  const image = Number(parts.get("image"));
  if (parts.has("image") && Number.isInteger(image) && image >= 0) selection.image = image;
}

function addressOf() {
  return Object.entries(selection).filter(([name, value]) => value !== first[name])
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

/** Change the selection: a choice enters the history, previous and next replace its last entry. */
function choose(changes, replace = false) {
  const left = !("pair" in changes) && ("source" in changes || "target" in changes) ? { pair: "" } : {};
  selection = { ...selection, ...left, ...changes };
  if (!("image" in changes) && ["attack", "pair", "defence", "eps"].some((name) => name in changes)) {
    selection.image = "eps" in changes ? selection.image : null;
  }
  history[replace ? "replaceState" : "pushState"](null, "", `#${addressOf()}`);
  render();
}

/** Return a place in arrays over some axes; names that are left out are those selected. */
function placeOn(names, where) {
  const at = { ...selection, eps_255: selection.eps, ...where };
  return names.reduce((place, name) => place * axes[name].length + places[name].get(at[name]), 0);
}
const allAxes = Object.keys(axes ?? {});
const value = (column, where) => data.values[column][placeOn(allAxes, where)] ?? null;
const tile = (column) => data.tiles[column][placeOn(allAxes.filter((name) => name !== "target"))] ?? null;

const key = (...names) => names.map((name) => (
  places[name === "eps" ? "eps_255" : name].get(selection[name]))).join(".");
const correct = () => selection.shown === "correct";
const rate = (where) => value(correct() ? "c" : "s", where);
const aimed = (attack = selection.attack) => data.targeted[places.attack.get(attack)];
const word = () => (correct() ? "still correct" : aimed() ? "target class reached" : "fooled");
const shortWord = () => word().replace("target class ", "").replace("still ", "");
const ranked = () => selection.protocol === first.protocol;
const relation = (source, target) =>
  data.relations[[places.source.get(source), places.target.get(target),
    places.defence.get(selection.defence)].join(".")]
  ?? ["transfer", ""];
const sourcesOf = (attack) => data.single[places.attack.get(attack)];
const sourceName = (source = selection.source) => source || (sourcesOf(selection.attack) === 1 ? "its only source"
  : sourcesOf(selection.attack) ? `mean of ${sourcesOf(selection.attack)} sources` : "no mean over sources");

/** Return source and target of the image: the chosen pair, or the best-ranked one that agrees. */
function pairOf() {
  const agrees = ([attack, source, target]) => attack === selection.attack
    && (!selection.source || source === selection.source) && (!selection.target || target === selection.target);
  if (selection.pair) return pairNames.get(selection.pair);
  const found = data.pairs.find(agrees) ?? data.pairs.find(([attack]) => attack === selection.attack) ?? data.pairs[0];
  return found.slice(1);
}

// Colours, markers and dashes of attacks, fixed by rank at the reference budget.
const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "circle"];
const DASHES = [[], [6, 3], [2, 2.5], [9, 3, 2, 3], [4, 4], [10, 4], [1, 3], [3, 1]];
const PATHS = {
  circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", square: "M-4,-4h8v8h-8z", "triangle-up": "M0,-5L5,4H-5z",
  diamond: "M0,-5.5L5.5,0L0,5.5L-5.5,0z", "triangle-down": "M0,5L5,-4H-5z", "triangle-right": "M5,0L-4,5V-5z",
  cross: "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
};
const slot = (attack) => data.colours[attack] ?? (attack === selection.attack ? 8 : 0);
const colour = (attack) => (slot(attack) ? `var(--c${slot(attack)})` : "var(--grey)");
const shape = (attack) => SHAPES[(slot(attack) || 1) - 1];
const dash = (attack) => DASHES[(slot(attack) || 1) - 1];

/** Draw a marker, on a piece of line if it has dashes. */
function marker(form, paint, dashes) {
  const size = dashes ? 30 : 12;
  return el("svg", { width: size, height: 12, viewBox: `${-size / 2} -6 ${size} 12`, "aria-hidden": "true" },
    dashes && el("path", { d: "M-14,0H14", stroke: paint, "stroke-width": 2, "stroke-dasharray": dashes }),
    el("path", { d: PATHS[form], fill: paint }));
}

function buttons(label, options, chosen, change) {
  const row = el("span", { class: "row", role: "group", "aria-label": label },
    options.map(([name, words]) => el("button", {
    type: "button", "aria-pressed": String(name === chosen), "data-value": String(name), click: () => change(name) },
      words)));
  return row;
}

function menu(name, label, options, chosen = selection[name], change = (its) => choose({ [name]: its })) {
  const select = el("select", { name, "aria-label": label },
    options.map(([one, words = one]) => el("option", { value: one }, words)));
  select.value = chosen;
  select.addEventListener("change", () => change(select.value));
  return el("label", {}, label, " ", select);
}

function renderControls() {
  const box = $("controls");
  const shown = axes.attack.filter((name) => slot(name));
  const more = axes.attack.filter((name) => !slot(name));
  const chips = shown.map((name) => el("button", {
    type: "button", class: "chip", "aria-pressed": String(name === selection.attack), style: `--its: ${colour(name)}`,
    "data-value": name, click: () => choose({ attack: name }) },
    marker(shape(name), colour(name), dash(name)), broken(name)));
  const controls = {
    budget: el("span", {}, "budget", buttons("budget", axes.eps_255.slice(1).map((eps) => [eps,
      String(Number(eps.toPrecision(6)))]),
      selection.eps, (eps) => choose({ eps })), "/255"),
    attack: el("span", {}, "attack", chips, more.length ? search(more) : null),
    source: several("source") && menu("source", "source", axes.source.map((one) => [one, sourceName(one)])),
    target: axes.target.length > 2 && menu("target", "target", axes.target.map((one) => [one, one
      || `all ${axes.target.length - 1} targets`])),
    defence: several("defence") && menu("defence", "defence", axes.defence.map((one) => [one])),
    show: el("span", {}, "show", buttons("show", [["fooled", aimed() ? "target class" : "fooled"],
      ["correct", "still correct"]],
      selection.shown, (shown) => choose({ shown }))),
    protocol: several("protocol") && menu("protocol", "counted", axes.protocol.map((one) => [one, words(one)])),
  };
  const used = Object.entries(controls).filter(([name, control]) => control && uses(name));
  fill(box, ...used.map(([, control]) => control));
  box.hidden = !used.length;
}

/** Return true if the shown part uses a control; in the part Why, controls select rows of its charts. */
function uses(control) {
  const { view } = selection;
  if (view === "data" || view === "method") return false;
  const key_ = control === "source" ? "pair_source" : control;
  return view !== "why"
    || data.figures.some(({ part, keys }) => part === "why" && Object.values(keys).includes(key_));
}

/** A field that finds an attack without a colour by its name. */
function search(names) {
  const field = el("input", { list: "more", placeholder: `more (${names.length})`, "aria-label": "more attacks",
    size: 12 });
  field.addEventListener("change", () => names.includes(field.value) && choose({ attack: field.value }));
  return [field, el("datalist", { id: "more" }, names.map((name) => el("option", { value: name })))];
}

function renderTiles() {
  $("tiles").replaceChildren(...tiles().map(([title, number, unit, note, white]) => el("div",
    { class: white ? "tile white" : "tile" },
    el("span", {}, title), el("b", {}, number, " ", el("small", {}, unit)), el("span", {}, note))));
  $("selected").textContent = `Selected: ${selection.attack}, ${sourceName()}, ${selection.target || "all targets"}, `
    + `${budget(selection.eps)}, counted: ${selection.protocol}`
    + (selection.defence === "none" ? "" : `, behind ${selection.defence}`) + `, ${word()}`;
}

function interval(where = {}) {
  const [low, high] = correct() ? ["cl", "ch"] : ["sl", "sh"];
  const ends = [value(low, where), value(high, where)];
  return ends[0] === null ? "" : `[${percent(ends[0])}, ${percent(ends[1])}]`;
}

function tiles() {
  const found = [];
  const pair = selection.target && selection.source;
  const counts = pair ? `${count(value(correct() ? "kc" : "k"))} / ${count(value("n"))} ` : "";
  const of = broken(selection.attack);
  const title = selection.target ? `${of} on ${broken(selection.target)}` : `${of}, transfer`;
  const note = interval() ? `${pair ? counts : "95 % "}${interval()}` : counts || sourceName();
  const white = selection.target && selection.source && relation(selection.source, selection.target)[0] === "white box";
  if (rate() !== null) found.push([title, `${percent(rate())} %`, shortWord(), note, white]);
  const boxes = tile(correct() ? "wc" : "w");
  const many = tile("wn");
  if (boxes !== null && !white) found.push([`${of}, white box`, `${percent(boxes)} %`, shortWord(),
    many > 1 ? `over ${many} ${selection.source ? "members" : "sources"}` : "one source", true]);
  const hard = tile("hard");
  if (hard !== null && axes.target.length > 2 && !selection.target) {
    const target = axes.target[hard];
    found.push([`${of}, hardest target`, `${percent(rate({ target }))} %`, shortWord(), broken(target)]);
  }
  return found;
}

function bars(rows, top) {
  const ticks = Array.from({ length: Math.round(top / tick(top)) + 1 }, (_, place) => place * tick(top));
  return ticks.map((at) => el("span", { style: `left: ${100 * at / top}%` },
    `${Math.round(100 * at)}`));
}
const tick = (top) => (top > 0.5 ? 0.25 : top > 0.25 ? 0.1 : 0.05);

/** Return the end of an axis from 0 that holds all these shares. */
function axisTop(shares) {
  const most = Math.max(0.05, ...shares.filter((one) => one !== null && one !== undefined));
  return Math.min(1, Math.ceil(most / tick(most) - 1e-9) * tick(most));
}

/** Return the attacks of the ranking as rows: level, interval, points behind, order, and verdict. */
function rankingRows() {
  const rows = data.ranking[key("defence", "source", "eps")] ?? [];
  const plain = ranked() && !selection.target;
  const made = rows.map((row) => {
    if (row.heading) return row;
    const where = { attack: row.name, source: selection.source || row.source };
    const level = rate(where);
    const ends = interval(where) ? [value(correct() ? "cl" : "sl", where), value(correct() ? "ch" : "sh", where)] : [];
    return { ...row, level, ends, attack: row.name, verdict: plain, where };
  });
  if (plain) return made;
  return made.filter((row) => !row.heading && row.level !== null)
    .sort((one, other) => (correct() ? one.level - other.level : other.level - one.level));
}

const sourcesRanked = (target = selection.target) =>
  data.sources[`${key("defence", "attack", "eps")}.${places.target.get(target)}`] ?? [];

function renderRanking() {
  const box = $("ranking");
  const attacks = rankingRows();
  const sources = ranked() && !correct() ? sourcesRanked() : [];
  const lacks = sources.length && sources[0].rank === undefined;
  const tested = lacks ? [] : sources;
  const single = lacks ? axes.target.slice(1).map(sourcesRanked).filter((its) => its.length > 1) : [];
  const levels = [...attacks, ...tested].flatMap((row) => [row.level ?? row.m, row.h, ...(row.ends ?? [])]);
  const top = axisTop(levels);
  const few = attacks.filter((row) => row.name).length;
  const open = box.dataset.open === "yes" || few <= 12;
  const dense = attacks.length + tested.length + 2 * single.length > 7;
  const table = el("div", { class: dense ? "ranked dense" : "ranked", style: `--step: ${100 * tick(top) / top}%` });
  const pair = selection.source && selection.target;
  const last = ranked() && !selection.target ? "points behind" : pair ? "k / n"
    : attacks.some((row) => row.ends?.length) ? "95 %" : "";
  const head = ["", "attack", "gradients", el("div", { class: "plot head" }, bars(attacks, top)), shortWord(), last];
  table.append(...head.map((one, place) => (typeof one === "string"
    ? el("div", { class: `head${place === 2 || place > 3 ? " number" : ""}` }, one) : one)));
  let shown = 0;
  for (const row of attacks) {
    if (row.heading) table.append(el("div", { class: "whole" }, row.heading));
    else if (open || shown < 12 || row.name === selection.attack) table.append(...rankedRow(row, top, "attack",
      attacks.length));
    shown += row.name ? 1 : 0;
  }
  if (sources.length) {
    if (lacks) {
      table.append(...sources[0].notes.map((text) => el("div", { class: "whole" }, text)));
    }
    table.append(...single.map(([{ text }]) => el("div", { class: "whole" }, text)));
    if (tested.length) {
      const heading = `sources of ${selection.attack}${selection.target && ` on ${selection.target}`}, `
        + "on common images (plain means: matrix)";
      table.append(el("div", { class: "whole" }, heading), ...tested.flatMap((row) => rankedRow({ ...row, level: row.m,
        ends: [row.l, row.h], verdict: true }, top, "source", tested.length, tested[0].m / top)));
    }
  }
  const title = `${tested.length > 1 ? "Attacks and sources" : "Attacks"} at ${budget(selection.eps)}, `
    + (selection.target ? `on ${selection.target}` : ranked() ? "ranked" : "not tested")
      + (selection.source ? ` from ${selection.source}` : "");
  const fold = few > 12 && el("button", { type: "button", "data-value": "fold", click: () =>
    { box.dataset.open = open ? "" : "yes"; renderRanking(); } }, open ? "fold" : `all ${few} attacks`);
  const plain = ranked() && !selection.target;
  const [marks, untested] = data.legend;
  const more = [["Attacks", plain && data.notes[key("defence", "source", "eps")]], ["Sources", tested[0]?.notes]]
    .filter(([, texts]) => texts?.length).map(([of, texts]) => el("p", {}, `${of}: ${texts.join(" ")}`));
  fill(box, el("h2", {}, title), table, fold || "",
    el("p", { class: "note" }, plain && !correct() ? marks : `${marks} ${untested}`),
    more.length > 0 && el("details", { class: "note", open: box.querySelector("details")?.open },
      el("summary", {}, "More on this ranking"), more));
}

function rankedRow(row, top, axis, many, dotted) {
  const paint = axis === "attack" ? colour(row.name) : "var(--text)";
  const left = (share) => `${100 * Math.max(0, Math.min(1, share / top))}%`;
  const plot = el("div", { class: "plot", style: `--its: ${paint}` });
  if (dotted !== undefined) plot.append(el("u", { style: `left: ${100 * dotted}%` }));
  const [low, high] = row.ends ?? [];
  if (low !== null && low !== undefined) {
    const width = 100 * (Math.min(high, top) - Math.max(low, 0)) / top;
    plot.append(el("i", { style: `left: ${left(low)}; width: ${width}%; top: 50%` }));
  }
  if (row.level !== null && row.level !== undefined) {
    const dot = marker(axis === "attack" ? shape(row.name) : "circle", paint);
    dot.setAttribute("style", `left: ${left(row.level)}; top: calc(50% - 5.5px)`);
    plot.append(dot);
  }
  const tied = row.verdict && (row.tie === "yes") && many > 1;
  const behind = row.lacks ? "lacks pairs"
    : !row.verdict ? countsOf(row.where)
    : row.d === null || row.d === undefined ? (row.rank === 1 ? "first" : "") : `${percent(row.d)} `;
  const span = row.verdict && row.dl !== null && row.dl !== undefined
    ? `[${minus(percent(row.dl))}, ${percent(row.dh)}]` : "";
  const chosen = selection[axis] === row.name;
  const gradients = row.gradients ? count(Math.round(row.gradients))
    + (row.fit ? ` + ${count(Math.round(row.fit))}` : "") : "";
  const name = axis === "attack" && row.source && !selection.source && row.source !== selection.source
    ? `${row.name}, ${row.source}` : row.name;
  return [
    el("div", { class: "rank second" }, row.verdict && row.rank ? `${tied && row.rank > 1 ? "= " : ""}${row.rank}`
      : ""),
    el("div", { class: axis === "attack" ? "" : "span", style: axis === "attack"
      ? `color: ${paint === "var(--grey)" ? "var(--second)" : paint}` : "" },
      el("button", { type: "button", class: chosen ? "chosen" : "", style: "color: inherit", title: row.lacks
        ? `lacks ${row.lacks}` : undefined,
        click: () => choose({ [axis]: axis === "source" && chosen ? axes.source[0] : row.name }) }, axis === "attack"
          ? el("b", {}, broken(name)) : broken(name))),
    axis === "attack" ? el("div", { class: "number second" }, gradients) : "",
    plot,
    el("div", { class: "number" }, el("b", {}, row.level === null || row.level === undefined ? ""
      : `${percent(row.level)} %`)),
    el("div", { class: "behind" }, behind, span && el("span", { class: "second" }, span)),
  ];
}

function countsOf(where) {
  const n = value("n", where);
  return n === null ? interval(where) : `${count(value(correct() ? "kc" : "k", where))} / ${count(n)}`;
}

/** A small line over the budget with a dot at the chosen one, 0 to 100 %. */
function spark(where) {
  const last = axes.eps_255.at(-1);
  const points = axes.eps_255.map((eps_255) => [eps_255, rate({ ...where, eps_255 })]).filter(([, share]) =>
    share !== null);
  const at = ([eps, share]) => `${(52 * eps / last).toFixed(1)},${(15 - 14 * share).toFixed(1)}`;
  const stroke = (d, width) => el("path", { d, fill: "none", stroke: "currentColor", "stroke-width": width,
    "stroke-linecap": "round", "vector-effect": "non-scaling-stroke" }); // a dot stays round in wide cells
  const here = points.find(([eps]) => eps === selection.eps);
  return el("svg", { viewBox: "-2 0 56 16", preserveAspectRatio: "none", "aria-hidden": "true" },
    stroke(points.length ? `M${points.map(at).join("L")}` : "", 1.2), here && stroke(`M${at(here)}h0`, 4));
}

function renderMatrix() {
  const sources = axes.source.filter(Boolean);
  const targets = axes.target.filter(Boolean);
  const [source, target] = pairOf();
  const narrow = targets.length > 10;
  const part = (share) => `calc(${share} * var(--l${slot(selection.attack) || 1}) * 1%)`;
  const mixed = (share) => `color-mix(in srgb, ${colour(selection.attack)} ${part(share)}, var(--back))`;
  const head = el("tr", {}, el("th"), targets.map((one) => el("th", { scope: "col" }, inParts(one))),
    targets.length > 1 && el("th", { scope: "col" }, "mean\u00a0of others"));
  const clean = el("tr", {}, el("th", { scope: "row", class: "second" }, "clean, % correct"), targets.map((one) => {
    const where = { target: one, protocol: "all", eps_255: 0,
      source: sources.find((its) => value("n", { target: one, protocol: "all", eps_255: 0, source: its }) !== null) };
    if (!where.source) return el("td");
    return el("td", { class: "clean" }, percent(value("c", where)),
      el("small", { class: "second" }, `${count(value("kc", where))} / ${count(value("n", where))}`));
  }));
  const rows = sources.map((its) => el("tr", {}, el("th", { scope: "row" }, inParts(its)), targets.map((one) => {
    const where = { source: its, target: one };
    const share = rate(where);
    const n = value("n", where);
    if (n === null) return el("td", { class: "second" }, "\u2013");
    const [kind, overlap] = relation(its, one);
    const counts = `${count(value(correct() ? "kc" : "k", where))} / ${count(n)}`;
    const spread = value("sd", where);
    const chosen = its === source && one === target;
    return el("td", {}, el("button", { type: "button", "data-pair": `${its}>${one}`,
      class: [kind === "transfer" ? "" : "hatched", chosen ? "pair" : ""].join(" "),
      style: kind === "transfer" ? `background: ${mixed(share ?? 0)}` : "",
      "aria-pressed": String(chosen),
        "aria-label": `${its} to ${one}${kind === "transfer" ? "" : ` (${kind})`}: ${percent(share)} %, ${counts}`,
      title: [kind === "transfer" ? "" : kind, overlap, interval(where)].filter(Boolean).join("; "),
      click: () => choose({ pair: `${its}>${one}` }) },
      el("b", {}, percent(share), spread !== null && !narrow ? el("small", {}, `\u00b1 ${percent(spread)}`) : null),
      narrow ? null : el("small", {}, counts), spark(where)));
  }), targets.length > 1 && el("td", { class: "mean" }, meanText({ source: its, target: "" }))));
  const means = el("tr", {}, el("th", { scope: "row" }, "mean of others"),
    targets.map((one) => el("td", { class: "mean" },
    meanText({ source: "", target: one }))), targets.length > 1 && el("td",
      { class: "mean", style: `color: ${colour(selection.attack)}` }, meanText({ source: "", target: "" })));
  const size = narrow ? "narrow" : sources.length > 3 ? "low" : "";
  const table = el("table", { class: `cells ${size}`, style: `--many: ${targets.length + 1}` },
    el("tbody", {}, head, clean, rows, axes.source[0] === "" ? means : null));
  const behind = selection.defence === "none" ? "" : ` behind ${selection.defence}`;
  const title = `${selection.attack} at ${budget(selection.eps)}${behind}: % ${word()}, `
    + "by source (row) and target (column)";
  const there = value("n", { source, target });
  const without = value("a", { source, target });
  const cell = there === null ? ""
    : `The pair of the image: ${[countsOf({ source, target }), interval({ source, target })].filter(Boolean).join(" ")}`
      + `${without ? `, ${count(without)} without a prediction` : ""}. `;
  const kinds = new Set(sources.flatMap((its) => targets.map((one) => relation(its, one)[0])));
  const note = el("p", { class: "note" },
    kinds.has("white box") && [el("span", { class: "swatch hatched" }),
      " White box: the target is the source; in no mean. "],
    kinds.has("own") && "Hatched, too: the source\u2019s network behind another defence. ",
    el("span", { class: "swatch pair" }), ` ${cell}Small lines: over the budget, 0 to 100 %. `,
    axes.source[0] === "" && targets.length > 1 && "Bottom right: the mean of the bottom row.");
  fill($("matrix"), el("h2", {}, title), el("div", { class: "scroll" }, table), note);
  $("columns").classList.toggle("wide", targets.length >= 7 || sources.length >= 7);
}

function meanText(where) {
  const share = relation(where.source, where.target)[0] === "white box" ? null : rate(where);
  return share === null ? "" : percent(share);
}

// Charts: specifications from Python, with the rows of the selection.
const drawn = new Map();
let vegaReady;

function loadVega() {
  vegaReady ??= textOf("vega").then((script) => document.head.append(Object.assign(document.createElement("script"),
    { textContent: script })));
  return vegaReady;
}

/** Draw a chart, or give a drawn one new rows; the text keeps its size at every width. */
async function chart(box, spec, rows, onBudget) {
  await loadVega();
  const width = box.clientWidth;
  if (!width) return;
  const height = Number(box.dataset.height);
  const at = [{ eps_255: selection.eps }];
  const old = drawn.get(box);
  if (old?.spec === spec) {
    for (const [name, its] of Object.entries({ rows, at })) if (old.names.has(name)) old.view.data(name, its);
    old.view.width(width - old.less);
    if (height) old.view.height(height);
    await old.view.runAsync();
    return;
  }
  old?.view.finalize();
  const names = new Set(spec.data.map((one) => one.name));
  const less = spec.autosize?.type?.startsWith("fit") ? 0 : 60; // charts of two panels keep their width
  const filled = { ...spec, data: spec.data.map((one) => ({ ...one, ...(one.name === "rows" ? { values: rows }
    : one.name === "at" ? { values: at } : {}) })) };
  const label = box.getAttribute("aria-label");
  const { view } = await window.vegaEmbed(box, filled, { mode: "vega", renderer: "svg", actions: false,
    width: width - less, ...(height && { height }) });
  box.setAttribute("aria-label", label); // vegaEmbed has its own
  drawn.set(box, { view, spec, names, less });
  if (onBudget) view.addEventListener("click", (event) => {
    const x = event.offsetX ?? event.clientX - box.getBoundingClientRect().left;
    const eps = view.scale("x").invert(x - view.origin()[0]);
    const nearest = axes.eps_255.slice(1).reduce((one, other) =>
      (Math.abs(other - eps) < Math.abs(one - eps) ? other : one));
    onBudget(nearest);
  });
}

function seriesRow(attack, eps_255, share, more = {}) {
  return { eps_255, value: share, series: attack, colour: colour(attack), dash: dash(attack), shape: shape(attack),
    width: attack === selection.attack ? 2.4 : 1.6, label: "", right: true, ...more };
}

/** Return the rows of all attacks over the budget, for the selected source and target. */
function overBudget(column) {
  return axes.attack.flatMap((attack) => {
    const apart = value("s", { attack }) === null && !selection.source
      ? axes.source.filter((one) => value("s", { attack, source: one }) !== null) : [selection.source];
    return apart.flatMap((source) => {
      const series = apart.length > 1 ? `${attack}, ${source}` : attack;
      return axes.eps_255.map((eps_255) => seriesRow(attack, eps_255, value(column, { attack, source, eps_255 }),
        { series, label: slot(attack) ? series : "" }));
    }).filter((row) => row.value !== null);
  });
}

function renderCurves() {
  const box = $("curves");
  if (!box.firstChild) {
    box.replaceChildren(el("h2"), el("div", { class: "charts" }, ["rates", "confidences"].map((name) =>
      el("div", {}, el("span", { class: "second" }), el("div", { class: "chart", "data-chart": name, role: "img" })))));
  }
  const subject = selection.target || "mean of other models";
  box.querySelector("h2").textContent = `Over the budget, ${subject}`
    + (selection.source ? `, from ${selection.source}` : "");
  const [rates, confidences] = box.querySelectorAll(".charts > div");
  rates.firstChild.textContent = `${word()}, /255`;
  confidences.firstChild.textContent = "confidence in the predicted class, right or wrong";
  const eps = (at) => choose({ eps: at });
  const whole = correct() || overBudget("s").some((row) => row.value > data.top);
  for (const [part, spec, column] of [[rates, whole ? "correct" : "success", correct() ? "c" : "s"],
    [confidences, "confidence", "f"]]) {
    const rows = overBudget(column);
    const at = rows.filter((row) => row.eps_255 === selection.eps && slot(row.series));
    part.lastChild.setAttribute("aria-label",
      `${part.firstChild.textContent}, ${subject}, at ${budget(selection.eps)}: `
      + at.map((row) => `${row.series} ${percent(row.value)} %`).join(", "));
    draw(part.lastChild, data.charts[spec], rows, eps);
  }
}

const onPaper = () => document.body.classList.contains("paper");
const queue = new Map();
/** Draw when the browser is idle, on paper at once; the last rows of a box win. */
function draw(box, spec, rows, onBudget) {
  if (!queue.size) (onPaper() ? queueMicrotask : setTimeout)(flush);
  queue.set(box, [spec, rows, onBudget]);
}
async function flush() {
  while (queue.size) {
    const [box, args] = queue.entries().next().value;
    queue.delete(box);
    if (box.isConnected) await chart(box, ...args);
  }
  document.body.dataset.drawn = JSON.stringify(selection);
}
