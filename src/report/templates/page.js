// Charts replace their still images when they come into view, in the reader's light or dark theme.
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map();

async function draw(box) {
  const spec = JSON.parse(document.getElementById(box.dataset.spec).textContent);
  const room = document.querySelector("main").clientWidth;
  if (spec.hconcat && room < 1000) {
    spec.vconcat = spec.hconcat;
    delete spec.hconcat;
  }
  const before = views.get(box);
  const chosen = before?.view.getState({
    signals: (name) => before.spec.params?.some((param) => param.bind && param.name === name),
    data: (name) => name.endsWith("_store"), // of selections
  });
  before?.finalize();
  const shown = await vegaEmbed(box, spec, {
    renderer: "svg",
    theme: dark.matches ? "dark" : undefined,
    config: { background: "transparent" },
    actions: { export: true, source: true, compiled: false, editor: false },
    downloadFileName: box.dataset.spec.replace("spec-", ""),
  });
  views.set(box, shown);
  if (chosen) await shown.view.setState(chosen).runAsync();
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }
  },
  { rootMargin: "300px" },
);
document.querySelectorAll(".vega").forEach((box) => seen.observe(box));
dark.addEventListener("change", () => [...views.keys()].forEach(draw));
