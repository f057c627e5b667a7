// Charts are drawn when they come into view, in the reader's light or dark theme;
// on a narrow page, parts that stand side by side stand below each other.
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const narrow = matchMedia("(max-width: 1000px)").matches;

function draw(box) {
  const spec = JSON.parse(document.getElementById(box.dataset.spec).textContent);
  if (spec.hconcat && narrow) {
    spec.vconcat = spec.hconcat;
    delete spec.hconcat;
  }
  vegaEmbed(box, spec, {
    renderer: "svg",
    theme: dark ? "dark" : undefined,
    config: { background: "transparent" },
    actions: { export: true, source: true, compiled: false, editor: false },
    downloadFileName: box.dataset.spec.replace("spec-", ""),
  });
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "300px" },
);
document.querySelectorAll(".vega").forEach((box) => seen.observe(box));
