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

function likeliest([who, top], names, label) {
  return [el("span", { text: who }), el("ol", {}, ...top.map(([one, share]) =>
    el("li", { class: one === label ? "true" : "", style: `--share: ${100 * share}%` },
      el("span", { text: names[one] }), el("b", { text: percent(share) }))))];
}

/** The pictures of one image beside each other, with the likeliest classes of source and target. */
function strip({ index, label, steps }, names, models) {
  return el("div", { class: "strip", "data-image": index }, ...steps.map((step) => {
    const uri = uris[step.picture];
    const image = uri
      ? el("img", { src: uri, alt: step.title, class: uri.startsWith("data:image/png") ? "small" : "" })
      : el("div", { class: "none", text: "not stored" });
    const lists = models.map(([role, name]) => [role, step.top[name]]).filter(([, top]) => top?.length);
    const words = step.eps === 0 ? `image ${index}: ${names[label]}` : step.words;
    return el("div", { class: "picture" }, image, el("b", { text: step.title }),
      ...lists.flatMap((one) => likeliest(one, names, label)), el("span", { text: words }));
  }));
}

function contactSheet(sheet, names, models) {
  const rows = sheet.examples.map((image, row) => {
    const made = strip({ ...image, steps: image.steps.map((step) => first(step, 3)) }, names, models);
    const button = el("button", { type: "button", text: "all budgets and targets" });
    button.addEventListener("click", () => { single = row; pictured = ""; render(chosen()); });
    made.firstChild.append(button);
    return made;
  });
  return [el("h4", { text: "Examples: requested images, and images from all classes, not chosen by outcome" }), el("div", { class: "galleries" }, ...rows)];
}

function overAll(sheet, names, source, target) {
  const { index, label, steps } = sheet.examples[Math.min(single, sheet.examples.length - 1)];
  const shown = steps.filter((step) => step.eps !== null);
  const head = el("tr", {}, el("th"), ...shown.map((step) => el("th", { text: step.title })));
  const rows = Object.keys(shown[0].top).map((model) =>
    el("tr", { class: model === target ? "chosen" : "" },
      el("th", { text: model + (model === source ? " (source)" : "") }),
      ...shown.map(({ top: { [model]: [first] } }) => first
        ? el("td", { class: first[0] === label ? "" : "fooled", text: `${names[first[0]]} ${percent(first[1])}` })
        : el("td", { text: "" }))));
  return [
    el("h4", { text: `Image ${index} (${names[label]}) over all budgets and targets` }),
    el("div", { class: "scroll" }, el("table", {}, head, ...rows)),
  ];
}

function gallery(kind, names, models) {
  return el("div", {}, el("h4", { text: kind.title[0].toUpperCase() + kind.title.slice(1) }),
    el("p", { class: "quiet", text: `${kind.count} initially correct images.` }),
    ...kind.strips.map((one) => strip(one, names, models)),
    ...(kind.all.length ? [numbers(kind.all)] : []));
}

/** A foldable list of the numbers of a gallery's images, and the option that stores their pictures. */
function numbers(all) {
  return el("details", { class: "quiet" }, el("summary", { text: "show all numbers" }),
    el("p", { text: all.join(", ") }),
    el("p", { text: `report.images=[${all.slice(0, 3)}] stores the pictures of these images.` }));
}

function render({ attack, first_source: source, first_target: target }) {
  const key = JSON.stringify([attack, source, target]);
  if (key === pictured || !album.dataset.seen) return;
  pictured = key;
  const mine = (one) => one.attack === attack && one.source === source;
  const sheet = sheets.find(mine);
  const left = leftOut.find(mine);
  const parts = [el("p", { text: `${attack}: ${source} \u2192 ${target}` })];
  if (sheet) {
    parts.push(search());
    const names = classes[sheet.classes];
    const models = [["source", source], ["target", target]].slice(source === target ? 1 : 0);
    if (sheet.examples.length) {
      parts.push(...contactSheet(sheet, names, models), ...overAll(sheet, names, source, target));
    }
    const kinds = (sheet.galleries[target] ?? []).map((kind) => gallery(kind, names, models));
    parts.push(el("div", { class: "galleries" }, ...kinds));
  }
  if (left) {
    const what = sheet ? "more pictures of this job, such as other targets" : "pictures of this job: higher-ranked jobs come first";
    parts.push(
      el("p", { text: `The page has no room for ${what}. To see them, build a page for this job alone:` }),
      el("pre", {}, el("code", { text: left.command })),
    );
  } else if (!sheet) {
    parts.push(el("p", { text: "No pictures of this job were stored. To store four images, run with report.examples=4." }));
  }
  album.replaceChildren(...parts);
}

/** Show an example beside the answer: a counted image that fools the target at the budget, else a counted one, else the first. */
function firstExample({ attack, first_source: source, first_target: target, eps, defence }) {
  const box = document.getElementById("example");
  const sheet = sheets.find((one) => one.attack === attack && one.source === source);
  const at = (image) => image.steps.find((step) => step.eps === eps);
  const wrong = (image) => at(image)?.top[target]?.[0]?.[0] !== image.label;
  const clean = (image, name) => image.steps[0].top[name]?.[0]?.[0] ?? image.label; // unknown of a source that is no target
  const right = (image) => [source, target].every((name) => clean(image, name) === image.label);
  const all = (sheet?.examples ?? []).filter(at);
  const image = all.find((one) => right(one) && wrong(one)) ?? all.find(right) ?? all[0];
  if (!image) return box.replaceChildren();
  const [original, perturbation] = image.steps;
  const same = perturbation.title.endsWith(` ${at(image).title}`); // it is stored at one budget
  const steps = [original, ...(same ? [perturbation] : []), at(image)];
  const models = [["source", source], ["target", target]].slice(source === target ? 1 : 0);
  box.replaceChildren(
    el("p", { class: "quiet", text: `${attack}: ${source} \u2192 ${target}${defence === "none" ? "" : " (without a defence)"}` }),
    strip({ ...image, steps: steps.map((step) => first(step, 1)) }, classes[sheet.classes], models),
  );
}

/** Return a step with only the most likely classes. */
function first(step, count) {
  const cut = Object.entries(step.top).map(([name, top]) => [name, top.slice(0, count)]);
  return { ...step, top: Object.fromEntries(cut) };
}

/** A field that finds an image by its number among the pictures shown. */
function search() {
  const field = el("input", { type: "number", min: "0", placeholder: "image number", "aria-label": "image number" });
  const answer = el("output");
  field.addEventListener("change", () => {
    const found = album.querySelector(`.strip[data-image="${Number(field.value)}"]`);
    found?.scrollIntoView({ behavior: "smooth", block: "center" });
    answer.textContent = found || !field.value ? ""
      : `Image ${field.value} has no picture for this pair. report.images=[${field.value}] stores it.`;
  });
  return el("p", { class: "search" }, field, answer);
}

function look() {
  album.dataset.seen = "yes";
  render(chosen());
}

if (album) {
  listeners.push(render, firstExample);
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
