// Single images, galleries, diagnostics and data: the parts that need a job's block.
const jobs = new Map();
const EXCEPTIONS = {
  never_flips: "never change class", bounce_back: "return to the right class",
  ends_more_confident_wrong: "are wrong with more confidence",
  dip_and_recovery: "keep their class, with a dip in confidence", below_8_bits: "change class below 1/255",
};

/** Return a job's predictions and pictures, unpacked once; null if the page has no room for them. */
function jobOf(attack, source) {
  const number = data.jobs.findIndex(([one, other]) => one === attack && other === source);
  if (number < 0) return null;
  if (!jobs.has(number)) jobs.set(number, unpackJob(number));
  return jobs.get(number);
}

async function unpackJob(number) {
  const job = JSON.parse(await textOf(`job-${number}`));
  job.bytes = await unpack(`pictures-${number}`);
  job.placeOf = placesOf(job.index);
  job.at = new Map((job.pictures.at ?? []).map(([image, eps, start, size]) => [`${image} ${eps}`, [start, size]]));
  job.seconds = new Map(job.second.map(([target, image, eps, ...top]) => [`${target} ${image} ${eps}`, top]));
  job.names = data.classes[job.classes];
  if (job.pictures.data !== undefined) job.clean = await cleanOf(job.pictures.data);
  return job;
}
const cleans = new Map();
const cleanOf = (number) => {
  if (!cleans.has(number)) cleans.set(number, unpack(`clean-${number}`));
  return cleans.get(number);
};

/** Return class, confidence and correctness of an image, or null where there is no prediction. */
function prediction(job, model, eps, image) {
  const budget = job.eps.indexOf(eps);
  const at = (model * job.eps.length + budget) * job.index.length + job.placeOf.get(image);
  const code = model < 0 || budget < 0 ? null : job.predicted[at] ?? null;
  if (code === null) return null;
  const label = code < 1 ? job.label[job.placeOf.get(image)] : code - 1;
  return { right: code === 0, label, name: code < 0 ? "no prediction" : job.names[label],
    share: (job.confidence[at] ?? 0) / 100, none: code < 0 };
}
const modelOf = (job, target, defence = selection.defence) =>
  job.models.findIndex(([name, behind]) => name === target && behind === defence);
function sourceModel(job) {
  const [name, defence] = job.source.split("@");
  return modelOf(job, name, defence ?? "none");
}

/** Return the counted images of a target: fooled and still correct at the budget, by confidence. */
function outcomesOf(job, target) {
  const model = modelOf(job, target);
  const counted = job.counted[selection.protocol]?.[model] ?? "";
  const fooled = [];
  const kept = [];
  job.index.forEach((image, place) => {
    const its = counted[place] === "1" ? prediction(job, model, selection.eps, image) : null;
    if (!its || its.none) return;
    const success = job.aimed ? its.label === job.aimed[place] : !its.right;
    if (success) fooled.push([image, its.share]);
    else if (its.right || job.aimed) kept.push([image, its.share]);
  });
  for (const list of [fooled, kept]) list.sort((one, other) => one[1] - other[1] || one[0] - other[0]);
  return { fooled, kept };
}

/** Return the place in a list that is next to its middle, a pictured image if there is one. */
function middle(job, list) {
  const centre = (list.length - 1) / 2;
  const byDistance = list.map((_, place) => place).sort((one, other) =>
    Math.abs(one - centre) - Math.abs(other - centre));
  const has = (place) => job.at.has(`${list[place][0]} ${selection.eps}`);
  return byDistance.find(has) ?? byDistance[0];
}

/** Return the image that is shown first: fooled, next to the median confidence. */
function firstImage(job, target) {
  const { fooled, kept } = outcomesOf(job, target);
  const list = fooled.length ? fooled : kept;
  return list.length ? list[middle(job, list)][0] : job.index[0];
}

/** Draw a picture of an image at a budget; null if none is stored. */
function picture(job, image, eps) {
  const places = data.clean[job.pictures.data]?.[image];
  const place = job.at.get(`${image} ${eps}`);
  if (!places || (eps && !place)) return null;
  const clean = job.clean.subarray(places[0], places[0] + places[1]);
  const name = `image ${image}, ${eps ? budget(eps) : "clean"}`;
  if (!job.pictures.small) {
    const bytes = eps ? job.bytes.subarray(...previewOf(job, place)) : clean;
    const made = el("img", { class: "picture", alt: name });
    made.src = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
    made.addEventListener("load", () => URL.revokeObjectURL(made.src));
    return made;
  }
  const change = eps ? new Int8Array(job.bytes.slice(place[0], place[0] + place[1]).buffer) : null;
  return canvas(job.pictures.shape, (at) => clean[at] + (change ? change[at] : 0), name);
}
function previewOf(job, [start, size]) {
  return [start + 4 + partBytes(job, start), start + size];
}
const partBytes = (job, start) => new DataView(job.bytes.buffer, job.bytes.byteOffset + start).getUint32(0, true);

function canvas([height, width], levelOf, label) {
  const made = el("canvas", { class: "picture small", width, height, role: "img", "aria-label": label });
  const pixels = new ImageData(width, height);
  for (let place = 0; place < width * height; place += 1) {
    for (let channel = 0; channel < 3; channel += 1) pixels.data[4 * place
      + channel] = levelOf(channel * width * height + place);
    pixels.data[4 * place + 3] = 255;
  }
  made.getContext("2d").putImageData(pixels, 0, 0);
  return made;
}

/** Draw the perturbation around grey, enlarged: whole, or the middle part of a photograph. */
function perturbation(job, image, eps) {
  const place = job.at.get(`${image} ${eps}`);
  if (!place) return [null, `report.images=[${image}] stores pictures`];
  const scale = 127 / eps;
  const small = job.pictures.small;
  const [start, size] = small ? place : [place[0] + 4, partBytes(job, place[0])];
  const change = new Int8Array(job.bytes.slice(start, start + size).buffer);
  const drawn = canvas(small ? job.pictures.shape : job.pictures.part, (at) => 128 + scale * change[at],
    `perturbation, ${budget(eps)}`);
  return [drawn, small ? `times ${Number(scale.toPrecision(2))}, grey is none` : "a fifth of the width, enlarged"];
}

function mark(right) {
  const d = right ? "M-4,0L-1,3.5L4.5,-4" : "M-4,-4L4,4M4,-4L-4,4";
  return el("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", role: "img", "aria-label": right ? "right"
    : "wrong" },
    el("path", { d, fill: "none", stroke: "currentColor", "stroke-width": 2 }));
}

function classOf(its, role, attack = selection.attack) {
  if (!its) return el("div", {}, role && el("span", { class: "inner-role" }, role), el("small", {}, "not evaluated"));
  const wrong = !its.right && !its.none;
  return el("div", { style: `--its: ${colour(attack)}` }, role && el("span", { class: "inner-role" }, role),
    el("div", { class: wrong ? "class wrong" : "class" }, its.none ? null : mark(its.right),
      el("bdi", { class: "name" }, broken(its.name)),
      its.none ? "" : `${percent(its.share, 0)} %`),
    el("div", { class: "track" }, el("i", { style: `width: ${100 * its.share}%` })));
}

/** One image over all budgets: pictures, and rows of [role, prediction at a budget]. */
function strip(job, image, roles, jobAt = job) {
  const [noise, words] = perturbation(jobAt, image, selection.eps);
  const none = (text) => el("div", { class: "picture hatched" }, text);
  const steps = [[0, "clean"], [null, `perturbation, ${budget(selection.eps)}`],
    ...axes.eps_255.slice(1).map((eps) => [eps, budget(eps)])];
  const room = onPaper() ? 700 : innerWidth;
  const narrow = room <= 600 || room < 78 * steps.length; // else words would break
  const box = el("div", { class: narrow ? "strip narrow" : "strip", style: `--many: ${steps.length}` });
  const figures = steps.map(([eps, name]) => {
    const made = eps === null ? noise : picture(jobAt, image, eps);
    return el("figure", { class: eps === selection.eps ? "here" : "" }, made
      ?? none(eps === 0 ? "no picture" : "not stored"),
      el("figcaption", {}, name));
  });
  const cells = roles.map(([role, at], row) => steps.map(([eps]) => (
    eps === null ? el("small", {}, row === 0 ? words : "") : at(eps, narrow ? role : ""))));
  if (narrow) {
    figures.forEach((figure, place) => figure.append(...cells.map((row) => row[place])));
    box.append(...figures);
  } else {
    box.append(el("span", { class: "role" }), ...figures);
    roles.forEach(([role], row) => box.append(el("span", { class: "role" }, broken(role)), ...cells[row]));
  }
  return box;
}

/** Let pictures that begin in the first window end in it, if that leaves them 72 pixels. */
function endAboveFold(box) {
  const { top, bottom } = box.getBoundingClientRect();
  if (onPaper() || top + scrollY > innerHeight) return;
  const side = box.querySelector(".picture").offsetHeight;
  box.style.setProperty("--most", `${Math.max(72, side + innerHeight - bottom - scrollY - 8)}px`);
}

function imageRows(job, model, image, name, paint, line, mark_ = "circle") {
  return job.eps.map((eps_255) => [eps_255, prediction(job, model, eps_255, image)])
    .filter(([, its]) => its && !its.none)
    .map(([eps_255, its]) => ({ eps_255, value: its.share, series: name, colour: paint, dash: line, shape: mark_,
      width: 2, label: name, right: its.right }));
}

const latest = new Map();
/** Show one image of the pair over all budgets, with its curve: of source and target, or of every attack. */
async function renderImage(box, every) {
  const turn = (latest.get(box) ?? 0) + 1;
  latest.set(box, turn);
  const [source, target] = pairOf();
  const job = await jobOf(selection.attack, source);
  if (turn !== latest.get(box)) return;
  const left = [...(data.left_out.predictions ?? [])].find(([attack, its]) => attack === selection.attack
    && its === source);
  if (!job || modelOf(job, target) < 0) {
    box.replaceChildren(el("h2", {}, `One image: ${source} \u2192 ${target}`), el("p", { class: "note" }, left
      ? "The page has no room for the images of this job. This command builds a page for it alone:"
        : "This pair was not evaluated."),
      left ? el("pre", {}, left[2]) : "");
    return;
  }
  const { fooled, kept } = outcomesOf(job, target);
  const in_ = (list) => list.findIndex(([image]) => image === selection.image);
  const known = job.placeOf.has(selection.image);
  let list = in_(kept) >= 0 ? kept : fooled;
  let place = in_(list);
  if (!known) {
    list = fooled.length ? fooled : kept;
    place = list.length ? middle(job, list) : -1;
  }
  const image = known ? selection.image : list[place]?.[0] ?? job.index[0];
  const label = job.names[job.label[job.placeOf.get(image)]];
  const total = fooled.length + kept.length;
  const success = aimed() ? "reach their target class" : "fooled";
  const centre = list.length ? list[Math.floor((list.length - 1) / 2)][1] : 0;
  const words = place < 0 ? "not counted here" : list === fooled
    ? `one of the ${fooled.length} of ${total} ${success} at ${budget(selection.eps)}`
    : (fooled.length ? "" : `none of ${total} is fooled; `)
      + `one of the ${kept.length} ${aimed() ? "not reached" : "still correct"} at ${budget(selection.eps)}`;
  const close = Math.abs(place - (list.length - 1) / 2) <= Math.max(1, list.length / 20);
  const near = known || !list.length ? ""
    : `, ${close ? "near" : "of those with a picture the nearest to"} the median of `
    + `their confidence (${percent(centre, 0)} %)`;
  const go = (by) => choose({ image: list[place + by][0] }, true);
  const turnTo = (other) => other.length && choose({ image: other[middle(job, other)][0] });
  const controls = el("span", { class: "buttons" },
    el("span", { class: "row", role: "group", "aria-label": "outcome" },
      el("button", { type: "button", "data-value": "fooled", "aria-pressed": String(list === fooled && place >= 0),
        disabled: !fooled.length, click: () => turnTo(fooled) }, `${aimed() ? "reached" : "fooled"} ${fooled.length}`),
      el("button", { type: "button", "data-value": "kept", "aria-pressed": String(list === kept && place >= 0),
        disabled: !kept.length, click: () => turnTo(kept) },
        `${aimed() ? "not reached" : "still correct"} ${kept.length}`)),
    el("span", { class: "row", role: "group", "aria-label": "images by confidence" },
      el("button", { type: "button", "data-value": "previous", disabled: place < 1, click: () => go(-1) },
        "\u2039 previous"),
      el("button", { type: "button", disabled: true }, place < 0 ? "\u2013" : `${place + 1} of ${list.length}`),
      el("button", { type: "button", "data-value": "next", disabled: place < 0 || place + 1 >= list.length,
        click: () => go(1) }, "next \u203a")));
  const behind = selection.defence === "none" ? "" : ` behind ${selection.defence}`;
  const title = el("div", { class: "title" }, el("h2", {}, `One image: ${image}, `, el("bdi", {}, label)),
    el("span", { class: "second" }, `${source} \u2192 ${target}${behind}: ${words}${near}`),
    every && finder(job), controls);
  const { roles, rows } = await (every ? attackRoles : pairRoles)(job, image, source, target);
  if (turn !== latest.get(box)) return;
  const curve = box.querySelector(".chart") ?? el("div", { class: "chart", role: "img" });
  const sheet = el("div", { class: "one" }, strip(job, image, roles),
    el("div", {}, el("span", { class: "second" }, "confidence: dot right, cross wrong"), curve));
  curve.setAttribute("aria-label", `Confidence of image ${image} over the budget; ${budget(selection.eps)} is chosen`);
  fill(box, title, sheet);
  endAboveFold(sheet.firstChild);
  curve.dataset.height = Math.min(220, Math.max(80, sheet.firstChild.offsetHeight - 68));
  draw(curve, data.charts.image, rows, (eps) => choose({ eps }));
}

function pairRoles(job, image, source, target) {
  const models = [["source", sourceModel(job)], ["target", modelOf(job, target)]].filter(([, model]) => model >= 0);
  const shown = models[0][1] === models.at(-1)[1] ? models.slice(-1) : models;
  const roles = shown.map(([role, model]) => [role, (eps, inner) =>
    classOf(prediction(job, model, eps, image), inner)]);
  const rows = shown.flatMap(([role, model]) => imageRows(job, model, image, role,
    role === "source" && shown.length > 1 ? "var(--second)" : colour(selection.attack), role === "source" ? [4, 3]
      : []));
  return { roles, rows };
}

const shownAttacks = () => [selection.attack,
  ...axes.attack.filter((name) => name !== selection.attack)].slice(0, 4);
/** Rows of the target under the chosen attack, with its second class, then under other attacks from the source. */
async function attackRoles(job, image, source, target) {
  const shown = shownAttacks();
  const all = (await Promise.all(shown.map((name) => jobOf(name, source)))).map((its, place) => [shown[place],
    its]).filter(([, its]) => its);
  const roles = all.flatMap(([attack, its]) => {
    const model = modelOf(its, target);
    const row = [attack, (eps, inner) => classOf(prediction(its, model, eps, image), inner, attack)];
    const second = ["second", (eps, inner) => {
      const top = its.seconds.get(`${target} ${image} ${eps}`);
      return el("div", { class: "class second" }, inner && el("span", { class: "inner-role" }, inner), top
        ? [el("bdi", { class: "name" }, broken(its.names[top[0]])), `${top[1]} %`] : "");
    }];
    const has = attack === selection.attack && its.eps.some((eps) => its.seconds.has(`${target} ${image} ${eps}`));
    return has ? [row, second] : [row];
  });
  const rows = all.flatMap(([attack, its]) => imageRows(its, modelOf(its, target), image, attack, colour(attack),
    dash(attack), shape(attack)));
  return { roles, rows };
}

const FEWEST = 3; // images of a bin that is drawn
const GROUPS = ["#8a939c", "#6b95b8", "#2f77b5", "var(--text)"];
/** Return the look of a group, the least confident first; no two have the same marker and dash. */
function groupLook(place, many) {
  const number = Math.round(place * 3 / Math.max(1, many - 1));
  const share = 100 * place / Math.max(1, many - 1);
  const rank = many - 1 - place; // the most confident group has a line without dashes
  return { dash: DASHES[rank % DASHES.length], shape: SHAPES[rank % (SHAPES.length - 1)],
    colour: many <= GROUPS.length ? GROUPS[number]
      : `color-mix(in srgb, var(--text) ${share.toFixed()}%, ${GROUPS[1]})` };
}

/** Return the rows of groups by clean confidence, the least confident first. */
function groupRows(groups, column) {
  const ordered = [...groups].reverse();
  return ordered.flatMap((group, place) => group.eps_255.map((eps_255, at) => ({ eps_255, value: group[column][at],
    series: groupName(group), ...groupLook(place, ordered.length), width: 2, label: "", right: true })))
    .filter((row) => row.value !== null);
}
const groupName = ({ lowest, highest }) => (lowest > 95 ? `${lowest}\u2013${highest} %`
  : `${Math.floor(lowest)}\u2013${Math.floor(highest)} %`);

/** Return the pair of a part, and the images that it counts if the selection counts others. */
function pairAndImages(job, target) {
  const plain = selection.defence === "none";
  const same = plain && ["joint", "source_correct", "target_correct"].includes(selection.protocol);
  const counted = same ? "" : ` (${plain ? "" : "no defence, "}right when clean)`;
  return `, ${job.source} \u2192 ${target}${counted}`;
}

/** Curves of one pair by clean confidence, in equal groups or fixed bins of 5 points. */
function groupsOf(job, target, box) {
  const fixed = box.dataset.fixed === "yes";
  const every = job.groups[fixed ? 1 : 0][target] ?? [];
  const groups = every.filter((group) => group.n[0] >= (fixed ? FEWEST : 1));
  const total = every.reduce((sum, group) => sum + group.n[0], 0);
  const title = el("div", { class: "title" }, el("h2", {},
    `All images under ${selection.attack}, by confidence when clean${pairAndImages(job, target)}`),
    el("span", { class: "buttons" }, buttons("groups", [["no", "equal groups"], ["yes", "bins of 5 points"]], fixed
      ? "yes" : "no",
      (choice) => { box.dataset.fixed = choice; groupsOf(job, target, box); })));
  if (total < 9 || !groups.length) {
    return fill(box, title, el("p", { class: "note" }, `Counted images: ${total}. Curves need 9.`));
  }
  const panels = [["robust_accuracy", "still correct"], ["confidence",
    "confidence in the predicted class"]].map(([column, words]) => {
    const made = el("div", { class: "chart", role: "img",
      "aria-label": `${words} over the budget, by confidence when clean` });
    draw(made, data.charts.group, groupRows(groups, column), (eps) => choose({ eps }));
    return el("div", {}, el("span", { class: "second" }, `${words}, /255`), made);
  });
  const legend = el("div", { class: "legend" }, [...groups].reverse().map((group, place) => {
    const { colour: paint, dash: line_, shape: form } = groupLook(place, groups.length);
    return el("span", {}, marker(form, paint, line_), `${groupName(group)} (${group.n[0]})`);
  }));
  const place = groups[0].eps_255.indexOf(selection.eps);
  const left = groups.map((group) => `${group.still_correct[place]} of ${group.n[place]}`).join(", ");
  const kept = place < 0 ? ""
    : `Still correct at ${budget(selection.eps)}, the most confident first: ${left}.`;
  const drawnImages = groups.reduce((sum, group) => sum + group.n[0], 0);
  const leftOut = total === drawnImages ? ""
    : ` Not drawn: ${total - drawnImages} of ${total} images, in bins of fewer than ${FEWEST}.`;
  const verdict = data.effects[[selection.attack, job.source, target].join("\n")] ?? "";
  return fill(box, title, el("div", { class: "pairs" }, panels), legend,
    el("p", { class: "note" },
      `${kept}${leftOut} ${verdict}`));
}

/** The exceptions of a target by kind, each with count, example, curve, and its list. */
function exceptions(job, target, box) {
  const kinds = job.kinds[target] ?? { n: 0 };
  const parts = Object.entries(EXCEPTIONS).filter(([kind]) => kinds[kind]?.length).map(([kind, words]) => {
    const images = kinds[kind];
    const image = images.find((one) => picture(job, one, 0)) ?? images[0];
    const model = modelOf(job, target, "none");
    const ends = job.eps.map((at) => [at, prediction(job, model, at, image)]).filter(([, one]) => one);
    const rows = ends.map(([, one], place) => [26 * 5 * place / Math.max(1, ends.length - 1), 44 - 40 * one.share,
      one.right]);
    const line = el("svg", { width: 140, height: 52, viewBox: "-5 -2 140 52", role: "img",
      "aria-label": `confidence of image ${image}` },
      el("path", { d: "M0,44H130", stroke: "var(--line)", fill: "none" }),
      el("path", { d: rows.length
        ? `M${rows.map((row) => row.slice(0, 2).map((one) => one.toFixed(1)).join(",")).join("L")}` : "", fill: "none",
        stroke: colour(selection.attack), "stroke-width": 1.5 }),
      rows.map(([x, y, right]) => el("path", { d: right ? `M${x - 3},${y}a3,3 0 1,0 6,0a3,3 0 1,0 -6,0`
        : `M${x - 3},${y - 3}l6,6m0,-6l-6,6`,
        fill: right ? colour(selection.attack) : "none", stroke: colour(selection.attack), "stroke-width": 1.5 })));
    const flip = ends.findIndex(([, one]) => !one.right && !one.none);
    const back = ends.findIndex(([, one], place) => place > flip && one.right);
    const [eps, its] = ends.at({ below_8_bits: flip, bounce_back: back }[kind] ?? -1);
    const label = job.names[job.label[job.placeOf.get(image)]];
    const button = el("button", { type: "button", click: () => choose({ image }) },
      `image ${image}`);
    return el("div", { class: "exception" }, picture(job, image, 0) ?? el("div", { class: "picture hatched" },
      "no picture"),
      el("div", {}, el("b", {}, `${images.length} of ${kinds.n} `), words, el("br"),
        el("small", {}, el("bdi", {}, label), "; ", el("bdi", {}, its.name),
          `, ${percent(its.share, 0)} % at ${budget(eps)} `), button,
        el("details", {}, el("summary", {}, "all"), el("small", {}, images.slice(0, 200).join(", ")))), line);
  });
  const absent = Object.entries(EXCEPTIONS) // budgets below 1/255 may not have been tried
    .filter(([kind]) => kind !== "below_8_bits" && !kinds[kind]?.length).map(([, words_]) => words_);
  fill(box, el("h2", {}, `Exceptions under ${selection.attack}${pairAndImages(job, target)}`), ...parts,
    el("p", { class: "note" }, kinds.n
      ? absent.length > 0 && `Of ${kinds.n} images, none ${absent.join("; none ")}.` : "No image is counted."),
    parts.length ? el("p", { class: "note" },
      `Curves: confidence, 0 to 100 %, over 0 to ${budget(axes.eps_255.at(-1))}.`) : "");
}

/** The clean images of a target: a histogram of their confidence, and accuracies. */
function cleanOfTarget(target, box) {
  const lines = data.accuracy.find(([name]) => name === target)?.[1] ?? [];
  const bars_ = box.querySelector(".chart")
    ?? el("div", { class: "chart", role: "img", "aria-label": "images by confidence when clean" });
  fill(box, el("h2", {}, "The data"), el("span", { class: "second" }, `${target}: images by confidence when clean`),
    bars_, el("table", { class: "plain" }, el("tbody", {}, lines.map(([term, words]) =>
      el("tr", {}, el("th", {}, term), el("td", {}, words))))));
  const figure = data.figures.find((one) => one.name === "confidences");
  draw(bars_, figure.spec, rowsOf(figure, { model: target }));
}

/** A field that finds an image by its number or its file. */
function finder(job) {
  const field = el("input", { "aria-label": "image number or file", placeholder: "number or file" });
  const said = el("output");
  field.addEventListener("change", () => {
    const typed = field.value.trim();
    const isFile = (file) => file && (`/${file}`.endsWith(`/${typed}`) || `/${typed}`.endsWith(`/${file}`));
    const found = job.index.filter((image, place) => typed && (`${image}` === typed || isFile(job.files?.[place])));
    if (found.length === 1) choose({ image: found[0] });
    else if (found.length) {
      const files = found.map((image) => job.files[job.placeOf.get(image)]);
      said.textContent = `Choose from ${files.join(", ")}.`;
    } else said.textContent = typed && `Image ${typed} is not one of the ${job.index.length} images.`;
  });
  return [el("label", { class: "search" }, "image ", field), said];
}

/** One image under every attack, the data, curves by confidence, exceptions, and all pictures of the pair. */
async function renderImages() {
  const [source, target] = pairOf();
  const { attack } = selection;
  const job = await jobOf(attack, source);
  if (attack !== selection.attack) return;
  const [one, { children: [about, groups, others] }, more] = $("images").children;
  renderImage(one, true);
  if (!job) {
    for (const box of [about, groups, others, more]) fill(box);
    return;
  }
  const pictured = job.index.filter((image) => job.at.has(`${image} ${selection.eps}`));
  const gallery = el("div", { class: "gallery" }, pictured.map((image) => el("button", { type: "button", click: () =>
    choose({ image }) },
    picture(job, image, selection.eps), `${image}, `, el("bdi", {}, job.names[job.label[job.placeOf.get(image)]]))));
  fill(more, ...overTargets(job, job.placeOf.has(selection.image) ? selection.image : firstImage(job, target)),
    el("h2", {}, `Pictures under ${attack} from ${source}, ${budget(selection.eps)}: ${pictured.length}`), gallery,
    el("p", { class: "note" }, "report.images=[45,412] stores more images by number."));
  cleanOfTarget(target, about);
  groupsOf(job, target, groups);
  exceptions(job, target, others);
}

/** A table of one image: the class that every target predicts at every budget. */
function overTargets(job, image) {
  const label = job.names[job.label[job.placeOf.get(image)]];
  const rows = job.models.map(([name, defence], model) => el("tr", {},
    el("th", { scope: "row" }, broken(defence === "none" ? name : `${name} behind ${defence}`)),
    job.eps.map((eps) => el("td", {}, classOf(prediction(job, model, eps, image), "")))));
  const title = [`Image ${image}, `, el("bdi", {}, label),
    `, under ${selection.attack} from ${job.source}: class for each target`];
  const heading = el("h3", { id: "over-targets" }, title);
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
let model = data.models[0];

/** The charts of a part; the rows are those of the selection. */
function renderFigures(part) {
  const box = document.querySelector(`.figures[data-part="${part}"]`);
  const [source] = axes ? pairOf() : [""];
  const chosen = { ...selection, pair_source: source, model };
  for (const figure of data.figures.filter((one) => one.part === part)) {
    const id = `figure-${figure.name}`;
    if (!$(id)) box.append(el("figure", { id, style: "margin: 0" }, el("h3"),
      el("div", { class: "scroll" }, el("div", { class: "chart", role: "img" })),
      el("figcaption", { class: "note" })));
    const rows = rowsOf(figure, chosen);
    $(id).querySelector(".scroll").hidden = !rows.length;
    $(id).querySelector("figcaption").textContent = rows.length ? figure.caption : "Not measured for this selection.";
    const names = Object.values(figure.keys).map((name) => chosen[name]);
    $(id).querySelector("h3").textContent = [figure.title, ...names].join(", ");
    $(id).querySelector(".chart").setAttribute("aria-label", `${figure.title}. ${figure.caption}`);
    if (rows.length) draw($(id).querySelector(".chart"), figure.spec, rows);
  }
}

function renderModels() {
  const select = menu("model", "model", data.models.map((name) => [name]), model, (name) => {
    model = name;
    renderFigures("data");
  });
  if (data.models.length > 1) $("models").replaceChildren(select);
}

function renderView(name) {
  if (name === "results") {
    renderRanking();
    renderMatrix();
    renderCurves();
    renderImage($("image"), false);
  } else if (name === "images") renderImages();
  else if (name === "why" || name === "data") renderFigures(name);
}

function render() {
  const { view } = selection;
  fill($("parts"), ...views.map(([name, words]) => el("a",
    { href: `#view=${name}`, "aria-current": name === view ? "page" : undefined,
    click: (event) => { event.preventDefault(); choose({ view: name }); } }, words)));
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== view;
  document.querySelector(".first").hidden = ["why", "data", "method"].includes(view) && Boolean(axes);
  if (axes) {
    renderControls();
    renderTiles();
  }
  renderView(view);
  if (!queue.size) document.body.dataset.drawn = JSON.stringify(selection);
  setTimeout(unpackForPaper);
}

/** Unpack what paper needs: browsers print what is drawn when `beforeprint` ends, and wait for no block. */
async function unpackForPaper() {
  await loadVega();
  if (!axes) return;
  for (const attack of shownAttacks()) await jobOf(attack, pairOf()[0]);
}

/** Draw every part at the width of paper. */
function renderAll() {
  document.body.classList.add("paper");
  for (const section of document.querySelectorAll("main > section")) section.hidden = false;
  for (const [name] of views) renderView(name);
  for (const one of document.querySelectorAll("details")) one.open = true;
}

readAddress();
renderModels();
render();
for (const event of ["popstate", "hashchange"]) addEventListener(event, () => { readAddress(); render(); });
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(render, 150); });
addEventListener("beforeprint", renderAll);
addEventListener("afterprint", () => { document.body.classList.remove("paper"); render(); });
