// Single images, galleries, diagnostics and data: the parts that need a job's block.
const jobs = new Map();
const EXCEPTIONS = {
  never_flips: "never change class", bounce_back: "return to the right class",
  ends_more_confident_wrong: "are wrong with more confidence",
  dip_and_recovery: "keep their class, with a dip in confidence", below_8_bits: "change class below 1/255",
};
/** Return what `make` makes of a name, made once. */
function once(known, name, make) {
  if (!known.has(name)) known.set(name, make(name));
  return known.get(name);
}
/** Return a job's predictions and pictures; null if the page has no room for them. */
function jobOf(attack, source) {
  const number = data.jobs.findIndex(([one, other]) => (data.tries || one === attack) && other === source);
  return number < 0 ? null : once(jobs, block(`job-${data.tries ? "tries-" : ""}${number}`), unpackJob);
}
/** Return the attack of the image: the chosen one, or on the screen of a rank the own one. */
const pairedAttack = () => (!data.by || data.jobs.some(([name]) => name === selection.attack) ? selection.attack
  : data.pairs[0][0]);
const block = (name) => (data.letter ? `${data.letter}-${name}` : name);
const cleans = new Map();
async function unpackJob(name) {
  const [its, before] = [sweeps.find(({ data: one }) => one.letter === data.letter).data, block("clean-")];
  const job = JSON.parse(await textOf(name));
  job.bytes = await unpack(name.replace("job-", "pictures-"));
  job.placeOf = placesOf(job.index);
  job.at = new Map((job.pictures.at ?? []).map(([image, eps, ...bytes]) => [`${image} ${eps}`, bytes]));
  job.seconds = new Map(job.second.map(([target, image, eps, ...top]) => [`${target} ${image} ${eps}`, top]));
  job.names = its.classes[job.classes];
  job.nameOf = (image) => job.names[job.label[job.placeOf.get(image)]];
  const set = job.pictures.data;
  job.cleanAt = its.clean[set];
  if (set !== undefined) job.clean = await once(cleans, `${before}${set}`, unpack);
  return job;
}
/** Return class, confidence and correctness of an image, or null where there is no prediction. */
function prediction(job, model, eps, image) {
  const [step, place] = [job.eps.indexOf(eps), job.placeOf.get(image)];
  const at = (model * job.eps.length + step) * job.index.length + place;
  const code = model < 0 || step < 0 ? null : job.predicted[at] ?? null;
  if (code === null) return null;
  const label = code < 1 ? job.label[place] : code - 1;
  const percent = job.confidence[at] ?? 0;
  return { right: code === 0, label, name: code < 0 ? "no prediction" : job.names[label], none: code < 0,
    share: percent / 100, text: `${percent} %` };
}
const modelOf = (job, target, defence = data.by ? "none" : behind()) =>
  job.models.findIndex(([name, its]) => name === target && its === defence);
/** Return how many tries fool an image. */
const triedOn = (job, model, image) => ({ right: !job.won[model][job.placeOf.get(image)],
  share: job.won[model][job.placeOf.get(image)],
  text: `fooled by ${job.won[model][job.placeOf.get(image)]} of ${budget(job.eps.at(-1))}` });
/** Return the counted images of a target: fooled and still correct at the budget, by confidence. */
function outcomesOf(job, target) {
  const model = modelOf(job, target);
  const counted = job.counted[selection.protocol]?.[model] ?? "";
  const [fooled, kept] = [[], []];
  job.index.forEach((image, place) => {
    const its = counted[place] !== "1" || (only && !only.has(image)) ? null
      : data.tries ? triedOn(job, model, image) : prediction(job, model, selection.eps, image);
    if (!its || its.none) return;
    const success = job.aimed ? its.label === job.aimed[place] : !its.right;
    if (success) fooled.push([image, its]);
    else if (its.right || job.aimed) kept.push([image, its]);
  });
  for (const list of [fooled, kept]) list.sort((one, other) => one[1].share - other[1].share || one[0] - other[0]);
  return { fooled, kept };
}
/** Return the place in a list that is next to its middle, a pictured image if there is one. */
function middle(job, list) {
  const centre = (list.length - 1) / 2;
  const byDistance = list.map((_, place) => place).sort((one, other) =>
    Math.abs(one - centre) - Math.abs(other - centre));
  const has = (place) => job.at.has(`${list[place][0]} ${data.tries ? 1 : selection.eps}`);
  return byDistance.find(has) ?? byDistance[0];
}

const partBytes = (job, start) => new DataView(job.bytes.buffer, job.bytes.byteOffset + start).getUint32(0, true);
/** Draw a picture of an image at a budget; null if none is stored. */
function picture(job, image, eps) {
  const places_ = job.cleanAt?.[image];
  const place = job.at.get(`${image} ${eps}`);
  if (!places_ || (eps && !place)) return null;
  const clean = job.clean.subarray(places_[0], places_[0] + places_[1]);
  const name = `image ${image}, ${eps ? budget(eps) : "clean"}`;
  if (!job.pictures.small) {
    const bytes = eps ? job.bytes.subarray(place[0] + 4 + partBytes(job, place[0]), place[0] + place[1]) : clean;
    const made = el("img", { class: "picture", alt: name });
    made.src = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
    made.addEventListener("load", () => URL.revokeObjectURL(made.src));
    return made;
  }
  const change = eps ? new Int8Array(job.bytes.slice(place[0], place[0] + place[1]).buffer) : null;
  return canvas(job.pictures.shape, (at) => clean[at] + (change ? change[at] : 0), name);
}
function canvas([height, width], levelOf, label) {
  const made = el("canvas", { class: "picture small", width, height, role: "img", "aria-label": label });
  const [pixels, size] = [new ImageData(width, height), width * height];
  pixels.data.forEach((_, at) => {
    pixels.data[at] = at % 4 === 3 ? 255 : levelOf((at % 4) * size + Math.floor(at / 4));
  });
  made.getContext("2d").putImageData(pixels, 0, 0);
  return made;
}
/** Draw the perturbation around grey, enlarged: whole, or the middle part of a photograph. */
function perturbation(job, image, eps) {
  const place = job.at.get(`${image} ${eps}`);
  if (!place) return [null, `report.images=[${image}] stores pictures`];
  const { small, shape, part } = job.pictures;
  const [start, size] = small ? place : [place[0] + 4, partBytes(job, place[0])];
  const change = new Int8Array(job.bytes.slice(start, start + size).buffer);
  const drawn_ = canvas(small ? shape : part, (at) => 128 + (127 / (job.size ?? eps)) * change[at],
    `perturbation, ${budget(eps)}`);
  const scale = data.scales[places.eps_255.get(eps)];
  return [drawn_, small ? `${scale}, grey is none` : "a fifth of the width, enlarged"];
}

function mark(right) {
  const d = right ? "M-4,0L-1,3.5L4.5,-4" : "M-4,-4L4,4M4,-4L-4,4";
  return el("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", role: "img", "aria-label": right ? "right"
    : "wrong" }, el("path", { d, fill: "none", stroke: "currentColor", "stroke-width": 2 }));
}
function classOf(its, attack = selection.attack) {
  if (!its) return el("small", {}, "not evaluated");
  const wrong = !its.right && !its.none;
  return el("div", { style: `--its: ${colour(attack)}` }, el("div", { class: wrong ? "class wrong" : "class" },
    !its.none && mark(its.right), el("bdi", { class: "name" }, broken(its.name)), !its.none && its.text),
  el("div", { class: "track" }, el("i", { style: `width: ${100 * its.share}%` })));
}
/** One image over all budgets: pictures, and rows of [role, what it says at a budget]. */
function strip(job, image, roles) {
  const here = data.tries && !job.at.has(`${image} ${selection.eps}`) ? 1 : selection.eps;
  const [noise, text] = perturbation(job, image, here);
  const each = data.tries ? orderOf().slice(0, 5).map(([attack, source], at) => [at + 1,
    [`${at + 1} `, el("bdi", {}, attack), ", ", el("bdi", {}, source)]])
    : tried.map((eps) => [eps, budget(eps)]);
  const steps = [[0, "clean"], [null, `${both ? "change" : "perturbation"}, ${data.tries ? `try ${here}`
    : budget(here)}`], ...each];
  const room = onPaper() ? 700 : innerWidth / (both && innerWidth > 1140 ? 2 : 1);
  const narrow = room <= 600 || room < 78 * steps.length; // else words would break
  const none = (eps) => el("div", { class: "picture hatched" }, eps === 0 ? "no picture" : "not stored");
  return el("div", { class: narrow ? "strip narrow" : "strip",
    style: `--many: ${steps.length}; --rows: ${roles.length + 2}` },
  el("div", { class: "roles" }, [["", ""], ...roles].map(([role]) => el("span", { class: "role" }, broken(role)))),
  steps.map(([eps, name]) => el("figure", { class: eps === here ? "here" : "" },
    (eps === null ? noise : picture(job, image, eps)) ?? none(eps), el("figcaption", {}, name),
    roles.map(([role, at], row) => el("div", {}, el("span", { class: "inner-role" }, eps === null ? "" : role),
      eps === null ? el("small", {}, row === 0 && (both ? noise && text.split(",")[0] : text)) : at(eps))))));
}
/** Let pictures that begin in the first window end in it, if that leaves them 72 pixels. */
function endAboveFold(box) {
  const { top, bottom } = box.getBoundingClientRect();
  if (onPaper() || top + scrollY > innerHeight) return;
  const side_ = box.querySelector(".picture").offsetHeight;
  const below = 8 + (both && $("legend").offsetHeight + 6);
  box.style.setProperty("--most", `${Math.max(72, side_ + innerHeight - bottom - scrollY - below)}px`);
}
const imageRows = (job, model, image, name, its) => job.eps
  .map((eps_255) => [eps_255, prediction(job, model, eps_255, image)]).filter(([, at]) => at && !at.none)
  .map(([eps_255, at]) => ({ eps_255, value: at.share, right: at.right, series: name, label: name, width: 2, ...its,
    ...(data.tries && { dash: [0, 99] }) })); // tries have no scale, so no line

const latest = new Map();
/** Show one image of the pair over all budgets, with its curve: of source and target, or of every attack. */
async function renderImage(box, every) {
  const turn = (latest.get(box) ?? 0) + 1;
  latest.set(box, turn);
  const [source, target] = pairOf();
  const here = held;
  const job = await jobOf(pairedAttack(), source);
  if (turn !== latest.get(box)) return;
  enter(...here);
  if (!job || modelOf(job, target) < 0) {
    const left = data.left_out?.find(([attack, its]) => attack === selection.attack && its === source);
    fill(box, el("h2", {}, `One image: ${source} \u2192 ${target}`), el("p", { class: "note" }, left
      ? "The page has no room for the images of this job. This command builds a page for it alone:"
      : "This pair was not evaluated."), left && el("pre", {}, left[2]));
    return;
  }
  const { fooled, kept } = outcomesOf(job, target);
  const in_ = (list) => list.findIndex(([image]) => image === selection.image);
  const chosen = job.placeOf.has(selection.image);
  const list = in_(kept) >= 0 || (!chosen && !fooled.length) ? kept : fooled;
  const place = chosen || !list.length ? in_(list) : middle(job, list);
  const image = chosen ? selection.image : list[place]?.[0] ?? job.index[0];
  const { title, texts } = aboutImage(list, place, fooled, kept, chosen);
  const go = (by) => choose({ [side ? "other" : "image"]: list[place + by][0] }, true);
  const turnTo = { fooled, kept };
  const turn_ = (by, name, text) => button(both ? text.replace(name, "").trim() : text, { "data-value": name,
    "aria-label": name, disabled: place < 0 || !list[place + by], click: () => go(by) });
  const controls = el("span", { class: "buttons" }, !both && buttons("outcome", Object.entries(turnTo).map(
    ([name, its]) => [name, `${texts[name]} ${its.length}`, its.length]), place < 0 ? "" : list === fooled ? "fooled"
    : "kept", (name) => choose({ image: turnTo[name][middle(job, turnTo[name])][0] })),
  el("span", { class: "row", role: "group", "aria-label": "images by confidence" },
    turn_(-1, "previous", "\u2039 previous"),
    !both && button(place < 0 ? "\u2013" : `${place + 1} of ${list.length}`, { disabled: true }),
    turn_(1, "next", "next \u203a")));
  const { roles, rows } = await (data.tries ? triesRoles : every ? attackRoles : pairRoles)(job, image, source, target);
  if (turn !== latest.get(box)) return;
  enter(...here);
  const curve = chartIn(box, "image", `Confidence of image ${image} over the budget, at ${budget(selection.eps)}`);
  const pictures = strip(job, image, roles);
  fill(box, el("div", { class: "title" }, el("h2", {}, both ? `${data.letter}: image` : "One image:", ` ${image}, `,
    el("bdi", {}, job.nameOf(image))),
    el("span", { class: "second" }, data.tries ? target : `${source} \u2192 ${target}`,
      `${data.by ? `, ${pairedAttack()}` : behindWords()}: ${title}`), every && finder(job),
    controls), el("div", { class: "one" }, pictures,
    !both && el("div", {}, el("span", { class: "second" }, data.titles?.image ?? "confidence: dot right, cross wrong"),
      curve)));
  endAboveFold(pictures);
  if (both) return;
  curve.dataset.height = Math.min(220, Math.max(80, pictures.offsetHeight - 68));
  draw(curve, data.charts.image, rows);
}
/** Say of which images one is, and near which confidence. */
function aboutImage(list, place, fooled, kept, chosen) {
  const total = fooled.length + kept.length;
  const texts = aimed() ? { fooled: "reached", kept: "not reached" } : { fooled: "fooled",
    kept: data.tries ? "never fooled" : "still correct" };
  const of = list === fooled ? `of ${total} ${aimed() ? "reach their target class" : "fooled"}` : texts.kept;
  const none = fooled.length ? "" : `none of ${total} is fooled; `;
  const close = Math.abs(place - (list.length - 1) / 2) <= Math.max(1, list.length / 20);
  const near = chosen || !list.length ? ""
    : `, ${close ? "near" : "of those with a picture the nearest to"} the median of their confidence `
      + `(${list[Math.floor((list.length - 1) / 2)][1].text})`;
  const half = `${place + 1} of ${list.length} ${list === fooled ? texts.fooled : texts.kept} (of ${total})`;
  return { texts, title: place < 0 ? "not counted here" : both ? half
    : data.tries ? `${list[place][1].text}${!chosen && close ? `, near the median of the ${list.length}` : ""}`
    : `${none}one of the ${list.length} ${of} at ${budget(selection.eps)}${near}` };
}
/** Rows of an audited target, one for each defence. */
function triesRoles(job, image) {
  const each = job.models.map(([, defence], model) => [defence, model]);
  return { roles: each.map(([defence, model]) => [defence, (q) => classOf(prediction(job, model, q, image), defence)]),
    rows: each.flatMap(([defence, model]) => imageRows(job, model, image, defence, look(defence))) };
}
function pairRoles(job, image, source, target) {
  const [name, defence = "none"] = source.split("@");
  const [own, other] = [modelOf(job, name, defence), modelOf(job, target)];
  const shown = [["source", own], ["target", other]].slice(own < 0 || own === other ? 1 : 0);
  const roles = shown.map(([role, model]) => [role, (eps) => classOf(prediction(job, model, eps, image))]);
  const plain = { shape: "circle", dash: [], colour: colour(selection.attack) };
  const rows = shown.flatMap(([role, model]) => imageRows(job, model, image, role,
    role === "source" ? { ...plain, dash: [4, 3], colour: "var(--second)" } : plain));
  return { roles, rows };
}
const shownAttacks = () => [selection.attack,
  ...axes.attack.filter((name) => name !== selection.attack)].slice(0, 4);
/** Rows of the target under the chosen attack, with its second class, then under other attacks from the source. */
async function attackRoles(job, image, source, target) {
  const shown = await Promise.all(shownAttacks().map(async (attack) => [attack, await jobOf(attack, source)]));
  const all = shown.filter(([, its]) => its);
  const roles = all.map(([attack, its]) => [attack, (eps) =>
    classOf(prediction(its, modelOf(its, target), eps, image), attack)]);
  const topAt = (eps) => job.seconds.get(`${target} ${image} ${eps}`);
  if (job.eps.some(topAt)) roles.splice(1, 0, ["second", (eps) => el("div", { class: "class second" },
    topAt(eps) && [el("bdi", { class: "name" }, broken(job.names[topAt(eps)[0]])), `${topAt(eps)[1]} %`])]);
  const rows = all.flatMap(([attack, its]) => imageRows(its, modelOf(its, target), image, attack, look(attack)));
  return { roles, rows };
}

const FEWEST = 3; // images of a bin that is drawn
const GROUPS = ["#8a939c", "#6b95b8", "#2f77b5", "var(--text)"];
/** Return the look of a group, the least confident first; no two have the same marker and dash. */
function groupLook(place, many) {
  const [share, rank] = [place / Math.max(1, many - 1), many - 1 - place];
  return { dash: DASHES[rank % DASHES.length], shape: SHAPES[rank % (SHAPES.length - 1)], // the last has a whole line
    colour: many <= GROUPS.length ? GROUPS[Math.round(3 * share)]
      : `color-mix(in srgb, var(--text) ${100 * share}%, ${GROUPS[1]})` };
}
/** Return the pair of a part, and the images that it counts if the selection counts others. */
function pairAndImages(job, target) {
  const plain = selection.defence === "none";
  const same = plain && ["joint", "source_correct", "target_correct"].includes(selection.protocol);
  return `, ${job.source} \u2192 ${target}${same ? "" : ` (${plain ? "" : "no defence, "}right when clean)`}`;
}
/** Curves of one pair by clean confidence, in equal groups or fixed bins of 5 points. */
function groupsOf(job, target, box) {
  const fixed = box.dataset.fixed === "yes";
  const every = job.groups[fixed ? 1 : 0][target] ?? [];
  const groups = every.filter((group) => group.n[0] >= (fixed ? FEWEST : 1));
  const count = (its) => its.reduce((sum, group) => sum + group.n[0], 0);
  const [total, shown] = [count(every), count(groups)];
  const title = el("div", { class: "title" }, el("h2", {},
    `All images under ${selection.attack}, by confidence when clean${pairAndImages(job, target)}`),
  el("span", { class: "buttons" }, buttons("groups", [["no", "equal groups"], ["yes", "bins of 5 points"]],
    fixed ? "yes" : "no", (choice) => { box.dataset.fixed = choice; groupsOf(job, target, box); })));
  if (total < 9 || !groups.length) {
    return fill(box, title, el("p", { class: "note" }, `Counted images: ${total}. Curves need 9.`));
  }
  const looks = [...groups].reverse().map((group, place) => [group, groupLook(place, groups.length)]);
  const panels = [["robust_accuracy", "still correct"], ["confidence", "confidence in the predicted class"]];
  const charts = panels.map(([column, text]) => {
    const made = chartIn(box, column, `${text} over the budget, by confidence when clean`);
    draw(made, data.charts.group, looks.flatMap(([group, its]) => group.eps_255.map((eps_255, at) => ({ eps_255,
      value: group[column][at], series: group.name, ...its, width: 2, label: "", right: true }))
      .filter((row) => row.value !== null)));
    return el("div", {}, el("span", { class: "second" }, `${text}, /255`), made);
  });
  const legend = el("div", { class: "legend" }, looks.map(([group, its]) =>
    el("span", {}, marker(its), `${group.name} (${group.n[0]})`)));
  const place = groups[0].eps_255.indexOf(selection.eps);
  const left = groups.map((group) => `${group.still_correct[place]} of ${group.n[place]}`).join(", ");
  return fill(box, title, el("div", { class: "pairs" }, charts), legend, el("p", { class: "note" },
    place >= 0 && `Still correct at ${budget(selection.eps)}, the most confident first: ${left}. `,
    total > shown && `Not drawn: ${total - shown} of ${total} images, in bins of fewer than ${FEWEST}. `,
    data.effects[[selection.attack, job.source, target].join("\n")]));
}
/** The exceptions of a target by kind, each with count, example, curve, and its list. */
function exceptions(job, target, box) {
  const kinds = job.kinds[target] ?? { n: 0 };
  const present = Object.entries(EXCEPTIONS).filter(([kind]) => kinds[kind]?.length);
  const parts = present.map(([kind, text]) => {
    const images = kinds[kind];
    const image = images.find((one) => picture(job, one, 0)) ?? images[0];
    const ends = job.eps.map((at) => [at, prediction(job, modelOf(job, target, "none"), at, image)])
      .filter(([, one]) => one);
    const points = ends.map(([, one], place) => [place / Math.max(1, ends.length - 1), one.share, one.right]);
    const flip = ends.findIndex(([, one]) => !one.right && !one.none);
    const back = ends.findIndex(([, one], place) => place > flip && one.right);
    const [eps, its] = ends.at({ below_8_bits: flip, bounce_back: back }[kind] ?? -1);
    return el("div", { class: "exception", style: `--its: ${colour(selection.attack)}` },
      picture(job, image, 0) ?? el("div", { class: "picture hatched" }, "no picture"),
      el("div", {}, el("b", {}, `${images.length} of ${kinds.n} `), text, el("br"),
        el("small", {}, el("bdi", {}, job.nameOf(image)), "; ", el("bdi", {}, its.name),
          `, ${its.text} at ${budget(eps)} `), button(`image ${image}`, { click: () => choose({ image }) }),
        el("details", {}, el("summary", {}, "all"), el("small", {}, images.slice(0, 200).join(", ")))),
      spark(points, points, `confidence of image ${image}`));
  });
  const absent = Object.entries(EXCEPTIONS) // budgets below 1/255 may not have been tried
    .filter(([kind]) => kind !== "below_8_bits" && !kinds[kind]?.length).map(([, text]) => text);
  fill(box, el("h2", {}, `Exceptions under ${selection.attack}${pairAndImages(job, target)}`), parts,
    el("p", { class: "note" }, !kinds.n ? "No image is counted."
      : absent.length > 0 && `Of ${kinds.n} images, none ${absent.join("; none ")}.`),
    parts.length && el("p", { class: "note" }, `Curves: confidence, 0 to 100 %, over 0 to ${budget(tried.at(-1))}.`));
}
/** The clean images of a target: a histogram of their confidence, and accuracies. */
function cleanOfTarget(target, box) {
  const lines = data.accuracy.find(([name]) => name === target)?.[1] ?? [];
  const bars = chartIn(box, "clean", "images by confidence when clean");
  fill(box, el("h2", {}, "The data"), el("span", { class: "second" }, `${target}: images by confidence when clean`),
    bars, el("table", { class: "plain" }, el("tbody", {}, lines.map(([term, text]) =>
      el("tr", {}, el("th", {}, term), el("td", {}, text))))));
  const figure = data.figures.find((one) => one.name === "confidences");
  draw(bars, figure.spec, rowsOf(figure, { model: target }), false);
}
/** A field that finds an image by its number or its file. */
function finder(job) {
  const said = el("output");
  const field = el("input", { "aria-label": "image number or file", placeholder: "number or file", change: () => {
    const typed = field.value.trim();
    const isFile = (file) => file && (`/${file}`.endsWith(`/${typed}`) || `/${typed}`.endsWith(`/${file}`));
    const found = job.index.filter((image, place) => typed && (`${image}` === typed || isFile(job.files?.[place])));
    if (found.length === 1) choose({ image: found[0] });
    else if (!found.length) said.textContent = typed && `Image ${typed} is not one of the ${job.index.length} images.`;
    else said.textContent = `Choose from ${found.map((image) => job.files[job.placeOf.get(image)]).join(", ")}.`;
  } });
  return [el("label", { class: "search" }, "image ", field), said];
}
/** One image under every attack, the data, curves by confidence, exceptions, and all pictures of the pair. */
async function renderImages() {
  const [source, target] = pairOf();
  const [{ attack }, here] = [selection, held];
  const job = await jobOf(attack, source);
  enter(...here);
  if (attack !== selection.attack || here[0] !== shownSweeps("images")[0]) return;
  const [one, { children: [about, groups, others] }, more] = $("images").children;
  renderImage(one, true);
  if (!job) {
    for (const box of [about, groups, others, more]) fill(box);
    return;
  }
  const { fooled, kept } = outcomesOf(job, target);
  const list = fooled.length ? fooled : kept;
  const image = job.placeOf.has(selection.image) ? selection.image : list[middle(job, list)]?.[0] ?? job.index[0];
  const pictured = job.index.filter((its) => job.at.has(`${its} ${selection.eps}`));
  const gallery = el("div", { class: "gallery" }, pictured.map((its) => button([picture(job, its, selection.eps),
    `${its}, `, el("bdi", {}, job.nameOf(its))], { click: () => choose({ image: its }) })));
  fill(more, overTargets(job, image),
    el("h2", {}, `Pictures under ${attack} from ${source}, ${budget(selection.eps)}: ${pictured.length}`), gallery,
    el("p", { class: "note" }, "report.images=[45,412] stores more images by number."));
  cleanOfTarget(target, about);
  groupsOf(job, target, groups);
  exceptions(job, target, others);
}
/** A table of one image: the class that every target predicts at every budget. */
function overTargets(job, image) {
  const heading = el("h3", { id: "over-targets" }, `Image ${image}, `, el("bdi", {}, job.nameOf(image)),
    `, under ${selection.attack} from ${job.source}: class for each target`);
  const rows = job.models.map(([name, defence], model) => el("tr", {},
    el("th", { scope: "row" }, broken(defence === "none" ? name : `${name} behind ${defence}`)),
    job.eps.map((eps) => el("td", {}, classOf(prediction(job, model, eps, image))))));
  return [heading, el("div", { class: "scroll" }, el("table", { class: "classes", "aria-labelledby": heading.id },
    el("tbody", {}, el("tr", {}, el("th"), job.eps.map((eps) => el("th", { scope: "col" },
      eps ? budget(eps) : "clean"))), rows)))];
}

function rowsOf(figure, chosen) {
  const { columns, data: rows } = figure.columns;
  const keys = Object.entries(figure.keys).map(([column, name]) => [columns.indexOf(column), chosen[name]]);
  return rows.filter((row) => keys.every(([at, wanted]) => row[at] === wanted))
    .map((row) => Object.fromEntries(row.map((one, at) => [columns[at], one])));
}
let model;
/** The charts of a part; the rows are those of the selection. */
function renderFigures(part) {
  const box = document.querySelector(`.figures[data-part="${part}"]`);
  const chosen = { ...selection, pair_source: axes && pairOf()[0], model };
  fill(box, data.figures.filter((one) => one.part === part).map((figure) => {
    const rows = rowsOf(figure, chosen);
    const made = chartIn(box, figure.name, `${figure.title}. ${figure.caption}`);
    if (rows.length) draw(made, figure.spec, rows, false);
    const title = [figure.title, ...Object.values(figure.keys).map((name) => chosen[name])].join(", ");
    return el("figure", { id: `figure-${figure.name}` }, el("h3", {}, title),
      el("div", { class: "scroll", hidden: !rows.length && "" }, made),
      el("figcaption", { class: "note" }, rows.length ? figure.caption : "Not measured for this selection."));
  }));
}
function renderModels() {
  model = data.models.includes(model) ? model : data.models[0];
  const select = menu("model", "model", data.models.map((name) => [name]), model, (name) => {
    model = name;
    renderFigures("data");
  });
  fill($("models"), data.models.length > 1 && select);
}
/** Draw the results of a sweep, or of each of two. */
function renderResults(listed) {
  const each = (draw_) => listed.forEach((its, to) => { enter(its, to, listed); draw_(); });
  $("results").classList.toggle("halves", listed.length > 1);
  $("legend").hidden = listed.length < 2;
  shares = [];
  each(() => both && !missing && shares.push(...rankingRows().flatMap((row) => [row.value, row.high])));
  each(() => {
    fill(part("half"), both && [el("b", { class: "letter" }, data.letter), el("h2", {}, broken(data.name)),
      el("span", { class: "second" }, missing ? `has no ${missing}: its numbers are left out` : data.about)]);
    for (const name of ["columns", "image"]) part(name).hidden = both && missing !== "";
    if (both && missing) return;
    for (const draw_ of [renderRanking, renderMatrix, renderCurves]) draw_();
    renderImage(part("image"), false);
  });
}
function renderView(name) {
  const listed = shownSweeps(name);
  if (name === "results" || screenOf(name)) renderResults(listed);
  enter(listed[0], 0, listed);
  if (name === "images") renderImages();
  if (name === "data") renderModels();
  if (name === "why" || name === "data") renderFigures(name);
}
function render() {
  enter(shownSweeps()[0], 0, shownSweeps());
  const { view } = selection;
  fill($("parts"), views.map(([name, text]) => el("a",
    { href: `#view=${name}`, "aria-current": name === view ? "page" : undefined,
      click: (event) => { event.preventDefault(); choose({ view: name }); } }, text)));
  const part_ = screenOf(view) ? "results" : view;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== part_;
  document.querySelector(".first").hidden = ["why", "data", "method"].includes(view) && Boolean(axes);
  if (axes) {
    renderControls();
    renderTiles();
  }
  renderView(view);
  if (!queue.size) document.body.dataset.drawn = JSON.stringify(chosen);
  setTimeout(unpackForPaper);
}
/** Unpack what paper needs: browsers print what is drawn when `beforeprint` ends, and wait for no block. */
async function unpackForPaper() {
  await loadVega();
  if (axes) for (const attack of data.titles ? [pairedAttack()] : shownAttacks()) await jobOf(attack, pairOf()[0]);
}
/** Draw every part at the width of paper. */
function renderAll() {
  document.body.classList.add("paper");
  for (const section of document.querySelectorAll("main > section")) section.hidden = false;
  for (const [name] of views) {
    if ((name !== "results" && !screenOf(name)) || screenOf(name) === screenOf(chosen.view)) renderView(name);
  }
  for (const one of document.querySelectorAll("details")) one.open = true;
}
readAddress();
render();
for (const event of ["popstate", "hashchange"]) addEventListener(event, () => { readAddress(); render(); });
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(render, 150); });
addEventListener("beforeprint", renderAll);
addEventListener("afterprint", () => { document.body.classList.remove("paper"); render(); });
