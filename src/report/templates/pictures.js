// Pictures of the chosen pair, made when they come into view: a contact sheet, one image over all
// budgets and targets, and the galleries. All words are text nodes.
const album = document.getElementById("pictures");
const { data: uris, classes, sheets, left_out: leftOut } = data.pictures;
let pictured = "";
let single = 0;

function el(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...(text === undefined ? [] : [text]), ...children);
  return made;
}

const percent = (share) => `${Math.round(100 * share)} %`;
const budget = (eps) => (eps ? `${Number(eps.toPrecision(3))}/255` : "clean");

function likeliest(top, names, label) {
  return el("ol", {}, ...top.map(([one, share]) =>
    el("li", { class: one === label ? "true" : "", style: `--share: ${100 * share}%` },
      el("span", { text: names[one] }), el("b", { text: percent(share) }))));
}

function picture(place, heading, tops = [], names = [], label = -1) {
  const uri = uris[place];
  const image = uri
    ? el("img", { src: uri, alt: heading, class: uri.startsWith("data:image/png") ? "small" : "" })
    : el("div", { class: "none", text: "not stored" });
  const lists = tops.filter(([, top]) => top?.length).flatMap(([who, top]) =>
    [el("span", { text: who }), likeliest(top, names, label)]);
  return el("div", { class: "picture" }, image, el("b", { text: heading }), ...lists);
}

function contactSheet(sheet, names, source, target) {
  const rows = sheet.images.map((image, row) => {
    const at = (place) => [["source", image.top[source]?.[place]], ["target", image.top[target]?.[place]]].slice(source === target ? 1 : 0);
    const button = el("button", { type: "button", text: "all budgets, targets" });
    button.addEventListener("click", () => { single = row; pictured = ""; render(chosen()); });
    const clean = picture(image.clean, "clean", at(0), names, image.label);
    clean.append(el("span", { text: `image ${image.index}: ${names[image.label]}` }), button);
    const noise = picture(image.perturbation, `perturbation, ${budget(sheet.at)}`);
    noise.append(el("span", { text: `times ${sheet.scale.toPrecision(3)}, around grey` }));
    const changed = sheet.drawn.map((eps, place) =>
      picture(image.pictures[place], budget(eps), at(sheet.budgets.indexOf(eps)), names, image.label));
    return el("div", { class: "sheet" }, clean, noise, ...changed);
  });
  return [el("h4", { text: "Examples, spread over the classes, not chosen by outcome" }), el("div", { class: "galleries" }, ...rows)];
}

function overAll(sheet, names, source, target) {
  const image = sheet.images[Math.min(single, sheet.images.length - 1)];
  const models = Object.keys(image.top);
  const head = el("tr", {}, el("th"), ...sheet.budgets.map((eps) => el("th", { text: budget(eps) })));
  const rows = models.map((model) =>
    el("tr", { class: model === target ? "chosen" : "" },
      el("th", { text: model + (model === source ? " (source)" : "") }),
      ...image.top[model].map(([first]) => first
        ? el("td", { class: first[0] === image.label ? "" : "fooled", text: `${names[first[0]]} ${percent(first[1])}` })
        : el("td", { text: "" }))));
  return [
    el("h4", { text: `Image ${image.index} (${names[image.label]}) over all budgets and targets` }),
    el("div", { class: "scroll" }, el("table", {}, head, ...rows)),
  ];
}

function gallery(kind, names, source, target) {
  const strips = kind.strips.map((strip) =>
    el("div", { class: "gallery" }, ...strip.steps.map((step) => {
      const tops = [["source", step.top[0]], ["target", step.top[1]]].slice(source === target ? 1 : 0);
      const made = picture(step.picture, budget(step.eps), tops, names, strip.label);
      made.append(el("span", { text: step.eps ? step.words : `image ${strip.index}: ${names[strip.label]}` }));
      return made;
    })));
  return el("div", {}, el("h4", { text: kind.title[0].toUpperCase() + kind.title.slice(1) }),
    el("p", { class: "quiet", text: `${kind.count} initially correct ones.` }), ...strips);
}

function render({ attack, first_source: source, first_target: target }) {
  const key = JSON.stringify([attack, source, target]);
  if (key === pictured || !album.dataset.seen) return;
  pictured = key;
  const mine = (one) => one.attack === attack && one.source === source;
  const sheet = sheets.find(mine);
  const parts = [el("p", { text: `${attack}: ${source} \u2192 ${target}` })];
  if (sheet) {
    const names = classes[sheet.classes];
    if (sheet.images.length) {
      parts.push(...contactSheet(sheet, names, source, target), ...overAll(sheet, names, source, target));
    }
    const kinds = (sheet.galleries[target] ?? []).map((kind) => gallery(kind, names, source, target));
    parts.push(el("div", { class: "galleries" }, ...kinds));
  } else {
    const left = leftOut.find(mine);
    parts.push(el("p", { text: left
      ? "The pictures of the pairs that rank first fill what a page has room for; a page of this job alone has its own:"
      : "No pictures of this job were stored (report.examples=4 stores those of four images)." }));
    if (left) parts.push(el("pre", {}, el("code", { text: left.command })));
  }
  album.replaceChildren(...parts);
}

function look() {
  album.dataset.seen = "yes";
  render(chosen());
}

if (album) {
  listeners.push(render);
  new IntersectionObserver((entries, self) => {
    if (entries.some((one) => one.isIntersecting)) { self.disconnect(); look(); }
  }, { rootMargin: "300px" }).observe(album);
  addEventListener("beforeprint", look);
}
if (form) {
  readAddress();
  show();
}
drawAll();
