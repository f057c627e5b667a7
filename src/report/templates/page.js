// Charts replace their still images when they come into view, in the reader's light or dark theme,
// side by side or below each other. Drawn anew, they keep what the reader chose.
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 1000px)");
const drawn = new Map(); // promises, so that of two changes the later one stays

async function draw(box, before) {
  const spec = JSON.parse(document.getElementById(box.dataset.spec).textContent);
  if (spec.hconcat && narrow.matches) {
    spec.vconcat = spec.hconcat;
    delete spec.hconcat;
  }
  const chosen = before?.view.getState({
    signals: (name) => spec.params?.some((param) => param.bind && param.name === name),
    data: (name) => name.endsWith("_store"), // of selections
  });
  before?.finalize();
  const result = await vegaEmbed(box, spec, {
    renderer: "svg",
    theme: dark.matches ? "dark" : undefined,
    config: { background: "transparent" },
    actions: { export: true, source: true, compiled: false, editor: false },
    downloadFileName: box.dataset.spec.replace("spec-", ""),
  });
  if (chosen) await result.view.setState(chosen).runAsync();
  return result;
}

function redraw(box) {
  drawn.set(box, Promise.resolve(drawn.get(box)).then((before) => draw(box, before)));
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      redraw(entry.target);
    }
  },
  { rootMargin: "300px" },
);
document.querySelectorAll(".vega").forEach((box) => seen.observe(box));
for (const change of [dark, narrow]) {
  change.addEventListener("change", () => [...drawn.keys()].forEach(redraw));
}
