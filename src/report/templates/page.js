// One selection drives the page: the address mirrors it, `choose` alone changes it, and renderers are
// functions of the data and the selection. Numbers come as texts, beside the values that place marks.
const $ = (id) => document.getElementById(id);
/** Unpack a deflated block of the page. */
async function unpack(name) {
  const packed = Uint8Array.from(atob($(`block-${name}`).textContent.trim()), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const textOf = async (name) => new TextDecoder().decode(await unpack(name));
const placesOf = (names) => new Map(names?.map((name, place) => [name, place]));
const WHITE = Symbol("the mean over white boxes, as a target");
const textsOf = ({ budgets: its }) => new Map(its?.map(([eps, ...both_]) => [eps, both_]));
/** Return a sweep's data with the places of names on its axes, and the rows by place. */
function indexed(its) {
  const at = its.axes && Object.fromEntries(Object.entries(its.axes).map(([name, all]) => [name, placesOf(all)]));
  at?.target.set(WHITE, its.axes.target.length);
  return { data: its, axes: its.axes, places: at, tried: its.axes?.eps_255.slice(1), rowAt: placesOf(its.rows?.place),
    only: its.images && new Set(its.images), budgets: textsOf(its) };
}
const page = JSON.parse(await textOf("page"));
const sweeps = (page.sweeps ?? [page]).map(indexed);
const screens = (page.screens ?? []).map(indexed); // of an audit, of a rank: other rows for the regions of the results
const screenOf = (view) => screens.find(({ data: its }) => its.view === view);
const views = [...screens.map(({ data: its }) => [its.view, its.label]),
  ...(page.axes ? [["results", "Results"], ["images", "Images"], ["why", "Why"]] : []),
  ["data", "Data"], ["method", "Method"]];
const start = page.first?.view ?? "data";
const firstOf = (view) => ({ ...page.first, pair: "", image: null, other: null, ...screenOf(view)?.data.first, view });
/** Return what can be chosen on a view. */
function knownOf(view) {
  const its = screenOf(view)?.data ?? page;
  const { eps_255: steps = [], ...named } = its.axes ?? {};
  const all = { ...named, eps: steps.slice(1), shown: Object.keys(page.shown ?? {}), pair: [
    ...(its.pairs ?? []).map(([, ...pair]) => pair.join(">")), ""], sweep: Object.keys(page.answers ?? {}) };
  return its.controls ? Object.fromEntries(Object.entries(all).filter(([name]) => name === "eps" || name === "pair"
    || name in its.controls)) : all;
}
let chosen = firstOf(start);
const shownSweeps = (view = chosen.view) => (screenOf(view) ? [screenOf(view)] : sweeps.filter(({ data: its }) =>
  !page.answers || chosen.sweep.split("+").includes(its.letter)).slice(0, view === "results" ? 2 : 1));
// What renderers read: a sweep, its side beside another if `both` are drawn, and what is selected in it.
let [data, axes, places, tried, rowAt, only, selection, held, side, both, missing] = [];
/** Let renderers read a sweep; `missing` says which choice it lacks, in whose place it has its first. */
function enter(its, to, listed) {
  ({ data, axes, places, tried, rowAt, only } = its);
  [held, side, both, missing] = [[its, to, listed], to, listed.length > 1, ""];
  selection = { ...chosen, ...(to && { image: chosen.other }), ...(both && { source: "" }) };
  for (const axis of Object.keys(axes ?? {})) {
    const name = axis.replace("_255", "");
    if (places[axis].has(selection[name])) continue;
    if (selection[name]) missing ||= name === "eps" ? budget(selection.eps) : `${name} ${selection[name]}`;
    selection[name] = axes[axis].includes("") ? "" : data.first[name] || axes[axis][0];
  }
  if (data.tries) selection.eps = Math.min(selection.eps, orderOf().length); // all tries on this target
}
const several = (axis) => axes[axis].length > 1;
const part = (name) => $(side ? `${name}-2` : name);
const within = (act, here = held) => (event) => { enter(...here); act(event); };
const picked = (name) => (both ? chosen : selection)[name];

/** Make an element; all texts are text nodes, whatever they hold. */
function el(tag, attributes = {}, ...children) {
  const made = ["svg", "path"].includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (["click", "change"].includes(name)) made.addEventListener(name, within(value));
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
  box.replaceChildren(...children.flat().filter((one) => one || one === 0));
  if (!old || old.isConnected) return;
  const controls = [...box.querySelectorAll("a, button, select, input, summary")];
  const again = controls.find((one) => one.tagName === old.tagName && nameOf(one) === nameOf(old));
  (again?.disabled ? again.closest(".row")?.querySelector("button:not(:disabled)") : again)?.focus();
}
const allBudgets = textsOf(page);
const [budgetText, budget] = [0, 1].map((at) => (eps) => (held[0].budgets.get(eps) ?? allBudgets.get(eps))[at]);
const partsOf = (name) => String(name).split(/(?<=[_/.@+-])/); // names break between them
const broken = (name) => partsOf(name).join("\u200b");
const inParts = (name) => partsOf(name).map((part) => el("span", {}, part));
const words = (protocol) => protocol.replace("_", " ");

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const { view } = chosen = firstOf((views.find(([name]) => name === parts.get("view")) ?? [start])[0]);
  for (const [name, options] of Object.entries(knownOf(view))) {
    const found = options.find((one) => String(one) === parts.get(name));
    if (found !== undefined) chosen[name] = found;
  }
  for (const name of ["image", "other"]) if (/^\d+$/.test(parts.get(name))) chosen[name] = Number(parts.get(name));
}
/** Change the selection: a choice enters the history, previous and next replace its last entry. */
function choose(changes, replace = false) {
  const left = "source" in changes || "target" in changes ? { pair: "" } : {};
  const other = ["attack", "pair", "defence"].some((name) => name in changes)
    ? { image: null, other: null } : {};
  const here = "view" in changes && screenOf(changes.view) !== screenOf(chosen.view);
  chosen = { ...(here ? firstOf(changes.view) : chosen), ...left, ...other, ...changes };
  const first = { ...firstOf(chosen.view), view: start };
  const address = Object.entries(chosen).filter(([name, value]) => value !== first[name])
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  history[replace ? "replaceState" : "pushState"](null, "", `#${address}`);
  render();
}

/** Return what a row says of a quantity; axes that are left out are as selected. */
function cell(where = {}, quantity = selection.shown) {
  const at = { ...selection, eps_255: selection.eps, ...where };
  const row = rowAt.get(Object.keys(axes).reduce((place, name) =>
    place * (axes[name].length + (name === "target")) + places[name].get(at[name]), 0));
  const columns = row === undefined ? [] : Object.entries({ ...data.rows, ...data.rows[quantity] });
  return Object.fromEntries(columns.map(([name, column]) => [name, column[row]]));
}
const ofKey = (rankings, names, where = {}) => rankings[names.map((name) =>
  places[name].get({ ...selection, eps_255: selection.eps, ...where }[name])).join(".")];
const correct = () => selection.shown === "correct";
const aimed = () => data.targeted[places.attack.get(selection.attack)];
const word = () => (aimed() && selection.shown === "fooled" ? "target class reached" : data.shown[selection.shown]);
const shortWord = () => word().split(" ").at(-1);
const tested = () => selection.protocol === data.first.protocol && ["fooled", "correct"].includes(selection.shown);
const behind = () => selection[data.behind ?? "defence"];
const behindWords = () => (behind() === "none" ? "" : ` behind ${behind()}`);
const label = (control) => data.controls?.[control] ?? control;
const titleOf = (region, plain) => data.titles?.[region].replace("{budget}", budget(selection.eps)) ?? plain;
const orderOf = () => data.order[places.defence.get(selection.defence)]; // of the tries on a target
const ofAttacks = () => [...new Set([...Object.keys(coloured()), selection.attack])];
const sourceName = (source = selection.source) => source || data.means[places.attack.get(selection.attack)];
/** Return source and target of the image: the chosen pair, or the best-ranked one that agrees. */
function pairOf() {
  if (data.tries) return [selection.defence, selection.defence];
  const exact = data.pairs.find(([, ...its]) => its.join(">") === selection.pair);
  const mine = data.pairs.filter(([attack]) => attack === pairedAttack());
  const agrees = ([, source, target]) => (!selection.source || source === selection.source)
    && (!selection.target || target === selection.target);
  return (exact ?? mine.find(agrees) ?? mine[0] ?? data.pairs[0]).slice(1);
}

// Colours, markers and dashes of attacks, fixed by rank at the reference budget.
const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "circle"];
const DASHES = [[], [6, 3], [2, 2.5], [9, 3, 2, 3], [4, 4], [10, 4], [1, 3], [3, 1]];
const PATHS = {
  circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", square: "M-4,-4h8v8h-8z", "triangle-up": "M0,-5L5,4H-5z",
  diamond: "M0,-5.5L5.5,0L0,5.5L-5.5,0z", "triangle-down": "M0,5L5,-4H-5z", "triangle-right": "M5,0L-4,5V-5z",
  cross: "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
};
const coloured = () => (data.own ? data.colours[selection.defence] : data.colours);
const slot = (attack) => coloured()[attack] ?? (attack === selection.attack ? 8 : 0);
/** Return colour, marker and dash of an attack; those without a slot are grey. */
function look(attack) {
  const number = slot(attack);
  const paint = data.tries ? ["grey", "text", "second"][number] ?? "grey" : number ? `c${number}` : "grey";
  return { colour: `var(--${paint})`, shape: SHAPES[(number || 1) - 1],
    dash: DASHES[(number || 1) - 1] };
}
const colour = (attack) => look(attack).colour;
/** Draw a marker, on a piece of line if it has dashes. */
function marker({ shape, colour: paint, dash }, style) {
  const size = dash ? 30 : 12;
  return el("svg", { width: size, height: 12, viewBox: `${-size / 2} -6 ${size} 12`, "aria-hidden": "true", style },
    dash && el("path", { d: "M-14,0H14", stroke: paint, "stroke-width": 2, "stroke-dasharray": dash }),
    el("path", { d: PATHS[shape], fill: paint }));
}
const button = (text, attributes) => el("button", { type: "button", ...attributes }, text);
const buttons = (label, options, chosen, change) => el("span", { class: "row", role: "group", "aria-label": label },
  options.map(([name, text, count]) => button(text, { "aria-pressed": String(name === chosen), "data-value": name,
    disabled: count === 0, click: () => change(name) })));
function menu(name, label, options, value = picked(name), change = (its) => choose({ [name]: its })) {
  const select = el("select", { name, "aria-label": label, change: () => change(select.value) },
    options.map(([one, text = one]) => el("option", { value: one }, text)));
  select.value = value;
  return el("label", {}, label, " ", select);
}

function renderControls() {
  const set = (name) => (value) => choose({ [name]: value });
  const { axes: all } = both ? page : data;
  const chips = all.attack.filter(slot).map((name) => button([marker(look(name)), broken(name)], {
    class: "chip", "aria-pressed": String(name === picked("attack")), style: `--its: ${colour(name)}`,
    "data-value": name, click: () => choose({ attack: name }) }));
  const more = all.attack.filter((name) => !slot(name));
  const field = el("input", { list: "more", placeholder: `more (${more.length})`, "aria-label": "more attacks",
    change: () => more.includes(field.value) && choose({ attack: field.value }) });
  const list = el("datalist", { id: "more" }, more.map((name) => el("option", { value: name })));
  const shown = Object.entries(data.shown).map(([name, text]) =>
    [name, name === "fooled" && aimed() ? "target class" : text]);
  const steps = data.tries ? [...data.steps.filter((q) => q < orderOf().length), orderOf().length]
    : all.eps_255.slice(1);
  const stepOf = (eps) => el("span", {}, budgetText(eps), both && el("small", {}, ` ${page.having[budgetText(eps)]}`));
  const menuOf = (name, label) => all[name].length > 1 && menu(name, label, all[name].map((one) => [one,
    name === "protocol" ? words(one) : one]));
  const letters = Object.keys(page.answers ?? {}).filter((name) => selection.view === "results" || !name.includes("+"))
    .map((name) => [name, name.replace("+", " and ")]);
  const sweep = both ? chosen.sweep : data.letter;
  const controls = {
    sweep: letters.length > 3 ? menu("sweep", "sweep", letters, sweep)
      : letters.length > 0 && el("span", {}, "sweep", buttons("sweep", letters, sweep, set("sweep"))),
    budget: el("span", {}, label("budget"), buttons("budget", steps.map((eps) => [eps, stepOf(eps)]),
      picked("eps"), set("eps")), data.tries ? "" : "/255"),
    attack: el("span", {}, label("attack"), chips, more.length > 0 && [field, list]),
    source: !both && several("source") && menu("source", "source", axes.source.map((one) => [one, sourceName(one)])),
    target: all.target.length > 2 && menu("target", "target", all.target.map((one) => [one, one
      || `all ${all.target.length - 1} targets`])),
    defence: data.own ? several("defence") && menu("defence", label("defence"), all.defence.map((one) => [one]),
      selection.defence, (defence) => choose({ defence, attack: data.own[defence] }))
      : menuOf("defence", label("defence")),
    show: el("span", {}, "show", buttons("show", shown, selection.shown, set("shown"))),
    protocol: menuOf("protocol", "counted"),
  };
  const used = Object.entries(controls).filter(([name]) => uses(name)).map(([, control]) => control).filter(Boolean);
  fill($("controls"), used);
  $("controls").hidden = !used.length;
}
/** Return true if the shown part uses a control; in the part Why, controls select rows of its charts. */
const uses = (control) => (data.controls ? control in data.controls
  : control === "sweep" && selection.view !== "method") || ["results", "images"].includes(selection.view)
  || (selection.view === "why" && data.figures.some(({ part, keys }) => part === "why"
    && Object.values(keys).includes(control === "source" ? "pair_source" : control)));

function renderTiles() {
  const [lead, rest, details] = both ? page.answers[chosen.sweep]
    : (data.answers && ofKey(data.answers, data.own ? ["defence"] : ["defence", "attack"])) ?? data.answer;
  fill($("answer"), el("b", {}, lead), rest);
  $("answer").classList.toggle("long", `${lead}${rest}`.length > 80);
  fill($("details"), details);
  if (page.answers) $("differs").hidden = !both;
  fill($("tiles"), both ? [] : tiles().map(([title, { text }, note, white, word_ = shortWord()]) => el("div", {
    class: white ? "tile white" : "tile" }, el("span", {}, title), el("b", {}, `${text} % `,
    el("small", {}, word_)), el("span", {}, note))));
  $("selected").textContent = data.titles ? `Selected: ${budget(selection.eps)}${behindWords()}`
    : `Selected: ${selection.attack}, ${sourceName()}, ${selection.target || "all targets"}, `
    + `${budget(selection.eps)}, counted: ${selection.protocol}${behindWords()}, ${word()}`;
}
/** Return title, cell and note of the tiles: the selection, white boxes, and the target that is fooled least. */
function tiles() {
  const told = data.tiles && (ofKey(data.tiles, ["defence", "eps_255"]) ?? []);
  if (data.tries) return told;
  const [of, its, boxes] = [broken(selection.attack), cell(), cell({ target: WHITE })];
  const white = its.relation === "white box";
  const note = its.ends ? `${its.counts || "95 %"} ${its.ends}` : its.counts || sourceName();
  const targets = axes.target.slice(1).map((target) => [target, cell({ target }, "fooled")])
    .filter(([, one]) => !one.relation && one.text).sort(([, one], [, other]) => one.value - other.value);
  const hard = !selection.target && targets.length && several("target") && targets[0][0];
  return [
    [selection.target ? `${of} on ${broken(selection.target)}` : `${of}, transfer`, its, note, white],
    ...(white ? [] : [[`${of}, white box`, boxes, boxes.note, true]]),
    ...(told ?? (hard && axes.target.length > 2
      ? [[`${of}, hardest target`, cell({ target: hard }), broken(hard)]] : [])),
  ].filter(([, one]) => one.text);
}

let shares = []; // that the axes of two sweeps hold
const tick = (top) => (top > 50 ? 25 : top > 25 ? 10 : 5);
/** Return the end of an axis in percent, from 0, that holds all these shares. */
function axisTop(shares) {
  const most = 100 * Math.max(0.05, ...shares.filter((one) => one !== null && one !== undefined));
  return Math.min(100, Math.ceil(most / tick(most) - 1e-9) * tick(most));
}
/** Return the attacks of the ranking as rows; those that are not tested are in the order of their levels. */
function rankingRows() {
  const rows = ofKey(data.rankings, ["defence", "source", "eps_255"])?.rows ?? [];
  const plain = tested() && !selection.target;
  const made = rows.map((row) => {
    const its = row.heading ? {} : cell({ attack: row.name, source: selection.source || (row.source ?? "") });
    const shared = { ...row, ...its, look: look(row.name), chosen: row.name === selection.attack,
      white: both && !row.heading && cell({ attack: row.name, target: WHITE }).text,
      click: () => choose({ attack: row.name }) };
    return { ...shared, ...(plain ? row.line
      : { text: its.text, rank: "", behind: its.counts || its.ends, span: "" }) };
  });
  if (plain) return made;
  return made.filter((row) => row.text).sort((one, other) => (correct() ? one.value - other.value
    : other.value - one.value));
}
const sourcesRanked = (target = selection.target) =>
  ofKey(data.sources, ["defence", "attack", "eps_255", "target"], { target }) ?? { rows: [], notes: [] };

function renderRanking() {
  const box = part("ranking");
  const attacks = rankingRows();
  const of = !both && tested() && !correct() ? sourcesRanked() : { rows: [], notes: [] };
  const [top_] = of.rows;
  const sources = of.rows.map((row) => ({ ...row, of: "source", look: { colour: "var(--text)", shape: "circle" },
    dotted: top_.value, chosen: row.name === selection.source,
    click: () => choose({ source: row.name === selection.source ? axes.source[0] : row.name }) }));
  const single = of.notes.length && !sources.length
    ? axes.target.slice(1).map((one) => sourcesRanked(one).text).filter(Boolean) : [];
  const few = attacks.filter((row) => row.name).length;
  const most = sources.length > 4 ? 7 : 12; // of the attacks, if more are folded
  const open = box.dataset.open === "yes" || few <= most;
  const listed = attacks.filter((row, place) => open || (row.listed ?? place < most) || row.chosen);
  const plain = tested() && !selection.target;
  const last = plain ? data.titles?.last ?? "points behind" : selection.source && selection.target ? "k / n"
    : attacks.some((row) => row.ends) ? "95 %" : "";
  const heading = `sources of ${selection.attack}${selection.target && ` on ${selection.target}`}, `
    + "on common images (plain means: matrix)";
  const table = rankedTable(last, [...listed, ...(sources.length ? [{ heading }, ...sources]
    : [...of.notes, ...single].map((text) => ({ heading: text })))]);
  const title = titleOf("ranking", [`${sources.length > 1 ? "Attacks and sources" : "Attacks"} at `,
    `${budget(selection.eps)}, `, selection.target ? `on ${selection.target}` : tested() ? "ranked" : "not tested",
    selection.source && ` from ${selection.source}`].join(""));
  const [marks, untested] = data.legend;
  const notes = plain && ofKey(data.rankings, ["defence", "source", "eps_255"])?.notes;
  const more = [["Attacks", notes], ["Sources", sources.length && of.notes]].filter(([, texts]) => texts?.length)
    .map(([name, texts]) => el("p", {}, `${name}: ${texts.join(" ")}`));
  fill(box, !both && el("h2", {}, title), table, few > most && button(open ? "fold" : `all ${few} attacks`, {
    "data-value": "fold", click: () => { box.dataset.open = open ? "" : "yes"; renderRanking(); } }),
  !both && el("p", { class: "note" }, plain && !correct() ? marks : `${marks} ${untested}`),
  !both && more.length > 0 && el("details", { class: "note", open: box.querySelector("details")?.open },
    el("summary", {}, "More on this ranking"), more));
}
/** Draw rows with marks on one axis; a row has texts, values, a look, and what a click on its name does. */
function rankedTable(last, rows) {
  const least = 100 * Math.min(0, ...rows.map((row) => row.low ?? row.value ?? 0)); // of differences
  const most = axisTop([...shares, ...rows.flatMap((row) => [row.value, row.high])]);
  const step = least ? [5, 10, 25].find((size) => most - least <= 3 * size) ?? 50 : tick(most);
  const [bottom, top] = [Math.floor(least / step + 0.1) * step, least ? Math.ceil(most / step) * step : most];
  const ticks = Array.from({ length: Math.round((top - bottom) / step) + 1 }, (_, place) => bottom + place * step);
  const part = (share) => 100 * Math.max(0, Math.min(1, (100 * share - bottom) / (top - bottom)));
  const table = el("div", { class: ["ranked", rows.length > 7 && "dense", rows.length > 12 && "tight"].filter(Boolean)
    .join(" "), style: `--step: ${100 * step / (top - bottom)}%` },
  ["", data.tries ? "defence" : "attack"].map((text) => el("div", { class: "head" }, text)),
  !both && el("div", { class: "head number" }, "gradients"), el("div", { class: "plot head" }, ticks.map((at) =>
    el("span", { style: `left: ${part(at / 100)}%` }, at))),
  [shortWord(), last, ...(both ? ["white box"] : [])].map((text) => el("div", { class: "head number" }, text)));
  for (const row of rows) {
    table.append(...(row.heading ? [el("div", { class: "whole" }, row.heading)] : rankedRow(row, part)),
      ...(row.parts ? [el("div", { class: "whole bars" }, row.parts.map(([count, text], at) => el("span", {
        class: at === 2 && "hatched", style: `flex: ${count}`, title: text }, count || "")))] : []));
  }
  return table;
}
function rankedRow(row, part) {
  const { colour: paint } = row.look;
  const plot = el("div", { class: "plot", style: `--its: ${paint}` },
    row.dotted !== undefined && el("u", { style: `left: ${part(row.dotted)}%` }),
    (row.low ?? null) !== null && el("i", { style: `left: ${part(row.low)}%; right: ${100 - part(row.high)}%` }),
    row.text && marker({ ...row.look, dash: null }, `left: ${part(row.value)}%`));
  const ink = row.of ? "" : `color: ${paint === "var(--grey)" ? "var(--second)" : paint}`;
  return [
    el("div", { class: "rank second" }, row.rank),
    el("div", { class: row.of ? "span" : "name", style: ink }, button(broken(row.title ?? row.name), {
      class: row.chosen ? "chosen" : "", title: row.lacks && `lacks ${row.lacks}`, click: row.click })),
    !row.of && !both && el("div", { class: "number second" }, row.gradients), plot,
    el("div", { class: "number" }, el("b", {}, row.text && `${row.text} %`)),
    el("div", { class: "behind" }, row.behind, row.span && el("span", { class: "second" }, row.span)),
    both && el("div", { class: "number hatched" }, row.white && `${row.white} %`),
  ].filter(Boolean);
}

/** A small line of shares from 0 to 100 %, with dots, or crosses where `right` is false. */
function spark(points, marks, label) {
  const at = ([x, share]) => `${(52 * x).toFixed(1)},${(15 - 14 * share).toFixed(1)}`;
  const stroke = (d, width) => el("path", { d, fill: "none", stroke: "currentColor", "stroke-width": width,
    "stroke-linecap": "round", "vector-effect": "non-scaling-stroke" }); // a dot stays round in wide cells
  return el("svg", { viewBox: "-2 0 56 16", preserveAspectRatio: "none", role: label && "img", "aria-label": label,
    "aria-hidden": !label && "true" }, stroke(points.length ? `M${points.map(at).join("L")}` : "", 1.2),
  marks.map((one) => stroke(`M${at(one)}${one[2] === false ? "m-1.2,-1l2.4,2m0,-2l-2.4,2" : "h0"}`, one[2] === false
    ? 1.5 : 4)));
}
function sparkOf(where) {
  const points = axes.eps_255.map((eps_255) => [eps_255 / axes.eps_255.at(-1), cell({ ...where, eps_255 }), eps_255])
    .filter(([, its]) => its.text).map(([x, its, eps]) => [x, its.value, eps]);
  return spark(points, points.filter(([, , eps]) => eps === selection.eps).map(([x, share]) => [x, share]));
}

function renderMatrix() {
  const targets = axes.target.filter(Boolean);
  const byAttack = data.by === "attack";
  const sources = byAttack ? ofAttacks().sort((one, other) => cell({ attack: other, target: "" }).value
    - cell({ attack: one, target: "" }).value) : axes.source.filter(Boolean);
  const at = (its, target_) => ({ [byAttack ? "attack" : "source"]: its, target: target_,
    ...(data.tries && { protocol: "alone", eps_255: 0 }) });
  const paint = (its) => (data.tries ? "var(--c9)" : colour(byAttack ? its : selection.attack));
  const [source, target] = pairOf();
  const [narrow, many, means] = [targets.length > 10, targets.length > 1, axes.source[0] === ""];
  const kinds = new Set();
  const mean = (where, style) => el("td", { class: "mean", style }, cell(where).text);
  const pair = (its, one) => {
    const [where, chosen] = [at(its, one), its === (byAttack ? pairedAttack() : source) && one === target];
    const { text, value, relation, overlap, counts, ends, spread } = cell(where);
    if (text === undefined) return el("td", { class: "second" }, "\u2013");
    kinds.add(relation);
    const mixed = `calc(${value ?? 0} * var(--l${data.tries ? 9 : slot(byAttack ? its : selection.attack) || 1}) * 1%)`;
    const shown = text || "n/a";
    const number = data.tries && orderOf().indexOf(`${its}, ${one}`) + 1;
    const choice = number ? { eps: number } : { pair: byAttack
      ? data.pairs.find(([, , name]) => name === one)?.slice(1).join(">") ?? "" : `${its}>${one}` };
    return el("td", {}, button([number && el("i", {}, number), el("b", {}, shown, spread && !narrow
      && el("small", {}, spread)), !narrow && el("small", {}, counts), !data.tries && sparkOf(where)], {
      "data-pair": `${its}>${one}`, class: [relation && "hatched", chosen && "pair"].filter(Boolean).join(" "),
      style: relation ? "" : `background: color-mix(in srgb, ${paint(its)} ${mixed}, var(--back))`,
      "aria-pressed": String(chosen), title: [relation, overlap, ends].filter(Boolean).join("; "),
      "aria-label": `${its} ${data.tries ? "from" : byAttack ? "on" : "to"} ${one}`
        + `${relation && ` (${relation})`}: ${shown} %, ${counts}`,
      click: () => choose(choice) }));
  };
  const clean = (one) => {
    const where = { target: one, protocol: "all", eps_255: 0, ...(byAttack && { attack: pairedAttack() }) };
    const its = axes.source.map((each) => cell({ ...where, source: each }, "correct")).find((each) => each.counts);
    return its ? el("td", { class: "clean" }, its.text, el("small", { class: "second" }, its.counts)) : el("td");
  };
  const row = (head, cells, style) => el("tr", {}, el("th", { scope: "row", class: style }, head), cells);
  const table = el("tbody", {}, el("tr", {}, el("th"), targets.map((one) => el("th", { scope: "col" }, inParts(one))),
    many && el("th", { scope: "col" }, data.titles?.mean ?? "mean\u00a0of others")),
  !data.tries && row("clean, % correct", targets.map(clean), "second"),
  sources.map((its) => row(byAttack ? el("b", { style: `color: ${colour(its)}` }, inParts(its)) : inParts(its),
    [...targets.map((one) => pair(its, one)), many && mean(at(its, ""))])),
  means && row(data.titles?.mean ?? "mean of others", [...targets.map((one) => mean(at("", one))),
    many && mean(at("", ""), data.tries ? "outline: 2px solid" : `color: ${colour(selection.attack)}`)]),
  (ofKey(data.rankings, ["defence", "source", "eps_255"])?.under ?? []).map(([head, texts]) =>
    row(head, texts.map((text) => el("td", {}, text)), "second")));
  const here = cell({ source, target });
  const words_ = [[here.counts, here.ends].filter(Boolean).join(" "), here.note].filter(Boolean).join(", ");
  const note = !both && el("p", { class: "note" }, ...(data.titles ? [data.titles.note] : [
    kinds.has("white box") && [el("span", { class: "swatch hatched" }),
    " White box: the target is the source; in no mean. "],
  kinds.has("own") && "Hatched, too: the source\u2019s network behind another defence. ",
  kinds.has("another training") && "Hatched, too: another training of the source\u2019s network; in no mean. ",
  el("span", { class: "swatch pair" }), words_ ? ` The pair of the image: ${words_}. ` : " ",
  "Small lines: over the budget, 0 to 100 %. ", means && many && "Bottom right: the mean of the bottom row."]));
  const title = titleOf("matrix", `${selection.attack} at ${budget(selection.eps)}${behindWords()}`
    + (both ? `, ${data.letter}: % ${word()}` : `: % ${word()}, by source (row) and target (column)`));
  const size = narrow ? "narrow" : sources.length > 3 ? `low${data.tries ? " tries" : ""}` : "";
  fill(part("matrix"), el("h2", {}, title), el("div", { class: "scroll" },
    el("table", { class: `cells ${size}`, style: `--many: ${targets.length + 1}` }, table)), note);
  part("columns").classList.toggle("wide", targets.length >= 7 || sources.length >= 7);
}

// Charts: specifications from Python, with the rows of the selection.
const drawn = new Map();
let vegaReady;
function loadVega() {
  vegaReady ??= textOf("vega").then((script) => document.head.append(Object.assign(document.createElement("script"),
    { textContent: script })));
  return vegaReady;
}
/** Return the box of a chart, which stays while what is around it is drawn again. */
function chartIn(box, name, label) {
  const made = box.querySelector(`[data-chart="${name}"]`) ?? el("div", { class: "chart", role: "img",
    "data-chart": name });
  made.setAttribute("aria-label", label);
  return made;
}
/** Draw a chart, or give a drawn one new rows; the text keeps its size at every width. */
async function chart(box, spec, rows, onBudget, eps_255) {
  await loadVega();
  const [width, height] = [box.clientWidth, Number(box.dataset.height)];
  if (!width) return;
  const values = { rows, at: [{ eps_255 }] };
  const old = drawn.get(box);
  if (old?.spec === spec) {
    for (const { name } of spec.data) if (values[name]) old.view.data(name, values[name]);
    old.view.width(width - old.less);
    if (height) old.view.height(height);
    await old.view.runAsync();
    return;
  }
  old?.view.finalize();
  const less = spec.autosize?.type?.startsWith("fit") ? 0 : 60; // charts of two panels keep their width
  const filled = { ...spec, data: spec.data.map((one) => (values[one.name]
    ? { ...one, values: values[one.name] } : one)) };
  const label = box.getAttribute("aria-label");
  const { view } = await window.vegaEmbed(box, filled, { mode: "vega", renderer: "svg", actions: false,
    width: width - less, ...(height && { height }) });
  box.setAttribute("aria-label", label); // vegaEmbed has its own
  drawn.set(box, { view, spec, less });
  if (onBudget) view.addEventListener("click", (event) => {
    const x = event.offsetX ?? event.clientX - box.getBoundingClientRect().left;
    const eps = view.scale("x").invert(x - view.origin()[0]);
    choose({ eps: knownOf(chosen.view).eps.reduce((one, other) =>
      (Math.abs(other - eps) < Math.abs(one - eps) ? other : one)) });
  });
}
const onPaper = () => document.body.classList.contains("paper");
const queue = new Map();
/** Draw when the browser is idle, on paper at once; the last rows of a box win. A click chooses the budget. */
function draw(box, spec, rows, onBudget = true) {
  if (!queue.size) (onPaper() ? queueMicrotask : setTimeout)(flush);
  queue.set(box, [spec, rows, onBudget, selection.eps]);
}
async function flush() {
  while (queue.size) {
    const [box, args] = queue.entries().next().value;
    queue.delete(box);
    if (box.isConnected) await chart(box, ...args);
  }
  document.body.dataset.drawn = JSON.stringify(chosen);
}

/** Return the rows of all attacks over the budget, for the selected source and target. */
function overBudget(quantity) {
  return (data.by ? ofAttacks() : axes.attack).flatMap((attack) => {
    const plain = cell({ attack }, "fooled").text || selection.source ? [selection.source] : [];
    const apart = plain.length ? plain : axes.source.filter((source) => cell({ attack, source }, "fooled").text);
    return apart.flatMap((source) => axes.eps_255.map((eps_255) => {
      const series = apart.length > 1 ? `${attack}, ${source}` : attack;
      const { value, text, low, high } = cell({ attack, source, eps_255 }, quantity);
      return { eps_255, value, text, low, high, series, ...look(attack), width: attack === selection.attack ? 2.4 : 1.6,
        label: slot(attack) ? series : "", right: true };
    })).filter((row) => row.text);
  });
}
function renderCurves() {
  const box = part("curves");
  const subject = selection.target || "mean of other models";
  const [level, confidence] = [overBudget(selection.shown), overBudget("confidence")];
  const whole = selection.shown !== "fooled" || level.some((row) => row.value > data.top);
  const panels = both ? [[`${word()}, ${subject}`, "half", level]]
    : data.titles ? [[data.titles.curve, "success", level]]
    : [[`${word()}, /255`, whole ? "correct" : "success", level],
      ["confidence in the predicted class, right or wrong", "confidence", confidence]];
  fill(box, el("h2", {}, titleOf("curves", `Over the budget, ${both ? data.letter : subject}${selection.source
    && `, from ${selection.source}`}`)),
    el("div", { class: "charts" }, panels.map(([title, spec, rows], place) => {
      const at = rows.filter((row) => row.eps_255 === selection.eps && row.label);
      const values = at.map((row) => `${row.series} ${row.text} %`).join(", ");
      const made = chartIn(box, place, `${title}, ${subject}, at ${budget(selection.eps)}: ${values}`);
      draw(made, data.charts[spec], rows);
      return el("div", {}, el("span", { class: "second" }, title), made);
    })));
}
