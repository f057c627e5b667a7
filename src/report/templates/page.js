// One choice drives the page: the menus hold it, the address mirrors it, and every chart has it as
// parameters `chosen_NAME`. Names from the address are looked up among the menus' options.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("choice");
const menus = form ? [...form.querySelectorAll("select")] : [];
const views = new Map();
const listeners = [];

const wanted = (menu) => String(data.choice[menu.name]);
const option = (menu, value) => [...menu.options].find((one) => one.value === String(value));
const isDefault = (menu) => menu.value === option(menu, wanted(menu))?.value;

/** The choice, and the pair shown in detail: the best-ranked pair that agrees with the choice. */
function chosen() {
  const values = Object.fromEntries(menus.map((menu) => [menu.name, menu.value]));
  const { attack, source, target } = values;
  const agrees = (pair) => pair[0] === attack && (!source || pair[1] === source);
  const pair =
    data.pairs.find((one) => agrees(one) && (!target || one[2] === target)) ??
    data.pairs.find(agrees) ?? [attack, source, target];
  return { ...values, eps: Number(values.eps), first_source: pair[1], first_target: pair[2] };
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const menu of menus) {
    menu.value = (option(menu, parts.get(menu.name)) ?? option(menu, wanted(menu))).value;
  }
}

function writeAddress() {
  const text = menus
    .filter((menu) => !isDefault(menu))
    .map((menu) => `${menu.name}=${encodeURIComponent(menu.value)}`)
    .join("&");
  if (text !== location.hash.slice(1)) {
    history.pushState(null, "", `#${text}`);
  }
}

/** Parse the rows of a CSV text; all columns but strings hold numbers or null. */
function parse(text, types) {
  const rows = [[]];
  for (const [, field, end] of text.matchAll(/("(?:[^"]|"")*"|[^,\n]*)(,|\n)/g)) {
    rows.at(-1).push(field[0] === '"' ? field.slice(1, -1).replaceAll('""', '"') : field);
    if (end === "\n") rows.push([]);
  }
  const [columns, ...values] = rows.slice(0, -1);
  const number = columns.map((name) => types[name] === "number");
  const value = (field, place) => (number[place] ? (field === "" ? null : Number(field)) : field);
  return values.map((row) => Object.fromEntries(row.map((field, at) => [columns[at], value(field, at)])));
}

const indexed = new Map();

/** Return the rows of a table that have the chosen values in the columns of `keys`. */
function rowsOf(name, keys, values, types) {
  const columns = Object.keys(keys);
  const id = `${name} ${columns}`;
  if (!indexed.has(id)) {
    if (!indexed.has(name)) indexed.set(name, parse(data.tables[name], types));
    indexed.set(id, Map.groupBy(indexed.get(name), (row) => JSON.stringify(columns.map((one) => row[one]))));
  }
  const key = JSON.stringify(columns.map((one) => values[keys[one]]));
  return (indexed.get(id).get(key) ?? []).map((row) => ({ ...row })); // a view changes its rows
}

/** Show the choice and update every drawn chart, visible charts first. */
async function show() {
  const values = chosen();
  menus.forEach((menu) => menu.classList.toggle("chosen", !isDefault(menu)));
  form.querySelector("button").hidden = menus.every(isDefault);
  form.querySelector("output").textContent =
    `Pair shown below: ${values.attack}, ${values.first_source} \u2192 ${values.first_target}`;
  const [lead, sentence, details] = Object.entries(data.answers).find(([eps]) => Number(eps) === values.eps)[1];
  const strong = Object.assign(document.createElement("b"), { textContent: lead });
  document.querySelector(".answer").replaceChildren(strong, ` ${sentence}`);
  document.querySelector(".details").textContent = details;
  listeners.forEach((listener) => listener(values));
  const away = (view) => Math.abs(view.container().getBoundingClientRect().top);
  const drawn = [...views.values()].sort((one, other) => away(one.view) - away(other.view));
  for (const { view, rows } of drawn) {
    for (const [name, value] of Object.entries(values)) {
      view.signal(`chosen_${name}`, value);
    }
    rows?.(values);
    await view.runAsync();
  }
}

/** Choose the item of a clicked mark; a second click resets its source and target. */
function choose(item) {
  const datum = item.mark.role?.startsWith("legend") ? { target: item.datum.value } : item.datum;
  const known = menus
    .map((menu) => [menu, datum?.[menu.name]])
    .filter(([menu, value]) => value !== undefined && menu.name !== "protocol")
    .map(([menu, value]) => [menu, option(menu, value) ?? (menu.name === "source" ? menu.options[0] : null)])
    .filter(([, found]) => found && found.parentNode.options.length > 1);
  const again = known.every(([menu, found]) => menu.value === found.value);
  for (const [menu, found] of known) {
    const back = again && ["source", "target"].includes(menu.name);
    menu.value = back ? menu.options[0].value : found.value;
  }
  if (known.length) {
    writeAddress();
    show();
  }
}

const ink = "currentColor"; // follows the theme: light, dark or print
const colours = {
  axis: { labelColor: ink, titleColor: ink, tickColor: "#888", gridColor: "#888" },
  legend: { labelColor: ink, titleColor: ink },
  header: { labelColor: ink, titleColor: ink },
  title: { color: ink, subtitleColor: ink },
  text: { color: ink },
};

/** Fit a chart, or two panels beside or below each other, to the available width. */
function fit(spec, width) {
  spec.config.legend.columns = Math.max(1, Math.floor(width / 125));
  if (spec.concat) {
    spec.columns = width > 560 ? 2 : 1;
    for (const panel of spec.concat) {
      const names = panel.layer.length > 2 ? 105 : 0; // width of the names right of the curves
      panel.width = Math.floor((width - 30 * (spec.columns - 1)) / spec.columns) - 50 - names;
    }
  } else if (typeof spec.width === "number") {
    spec.width = "container";
  }
}

async function draw(box) {
  const own = data.specs[box.dataset.name];
  const large = own.datasets[0];
  let types; // of its largest table, which the page parses where the choice takes rows of it
  const spec = JSON.parse(JSON.stringify(own), (key, value) => {
    if (own.usermeta && value?.name === large && value.format) {
      types = value.format.parse;
      return { name: large };
    }
    return value;
  });
  const follows = menus.length && spec.params?.some((one) => one.name === "chosen_attack");
  spec.datasets = Object.fromEntries(spec.datasets.map((name) => [name, data.tables[name]]));
  fit(spec, Math.max(260, box.clientWidth - 38));
  let rows;
  if (follows) {
    const values = chosen();
    for (const param of spec.params.filter((one) => one.name.startsWith("chosen_"))) {
      param.value = values[param.name.replace("chosen_", "")];
    }
    if (own.usermeta) {
      rows = (now) => rowsOf(large, own.usermeta, now, types);
      spec.datasets[large] = rows(values);
    }
  }
  const { view } = await vegaEmbed(box, spec, {
    renderer: "svg",
    config: { background: "transparent", ...colours },
    actions: { export: true, source: true, compiled: false, editor: false },
    downloadFileName: box.dataset.name,
  });
  if (follows) {
    views.set(box.dataset.name, { view, rows: rows && ((now) => view.data(large, rows(now))) });
    view.addEventListener("click", (event, item) => item && choose(item));
  }
}

async function drawAll() {
  for (const box of document.querySelectorAll(".vega")) {
    await draw(box);
    await new Promise((next) => setTimeout(next)); // lets the page handle clicks in between
  }
  document.body.dataset.drawn = "yes";
}

if (form) {
  form.addEventListener("change", () => (writeAddress(), show()));
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    menus.forEach((menu) => (menu.value = wanted(menu)));
    writeAddress();
    show();
  });
  for (const event of ["popstate", "hashchange"]) {
    addEventListener(event, () => (readAddress(), show()));
  }
}
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the choice
    document.getElementById(link.getAttribute("href").slice(1)).scrollIntoView({ behavior: "smooth" });
  });
}
const here = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      document.querySelector(`nav a[href="#${target.id}"]`)?.classList.toggle("here", isIntersecting);
    }
  },
  { rootMargin: "-20% 0px -70% 0px" },
);
document.querySelectorAll("section").forEach((section) => here.observe(section));
addEventListener("beforeprint", () => {
  document.querySelectorAll("main > section > details").forEach((one) => (one.open = true));
});
