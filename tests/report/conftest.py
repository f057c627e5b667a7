"""Sweeps made up of random numbers, as files that a report reads."""

import shutil
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts.jobs import find_jobs
from src.artifacts.record import with_record
from src.report.audit import audited
from src.report.page.frame import build_report
from src.report.page.html import Report, write_page
from src.report.results import Results, results_of
from tests.records import make_record

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
BUDGETS = (1.0, 2.0, 4.0, 8.0, 16.0)
SIDE = 8  # pixels of an image
HOSTILE = ("<script>alert(1)</script>", 'a"b\nc.d[0]', "it's, {x}\r & 'y'")
THREE = ("vgg", "resnet", "vit")
FOUR = (*THREE, "mixer")
FEW: dict[str, Any] = {"images": 60, "budgets": (2.0, 8.0), "full": False}
SMALL: dict[str, Any] = {"models": ("vgg", "vit"), "attacks": ("fgsm",), "budgets": (2.0, 8.0)}
SAVED = {"models": ("a", "b", *FOUR), "sources": ("a", "b"), "targets": FOUR}
HOSTILES = {"models": HOSTILE, "attacks": ("f.g[0]<b>",), "classes": HOSTILE, "images": 60}
PAIR: dict[str, Any] = {"models": ("vgg", "vit"), "full": False}
LATER = {"attacks": ("fgsm", "mi"), "images": 45, "first": 15, "budgets": (8.0, 16.0)}
KINDS: dict[str, dict[str, Any]] = {
    "ordinary": {"files": True},
    "one image": {**SMALL, "images": 1, "classes": ("cat",)},
    "missing values": {**SMALL, "images": 45, "missing": True, "budgets": (0.0234375, 1 / 3, 99.5)},
    "hostile names": {**HOSTILES, "budgets": (8.0,)},
    "clean images": {**SMALL, **FEW, "attacks": ("",), "sources": ("vgg",)},
    "one source": {**SMALL, "attacks": ("fgsm", "bim"), "sources": ("vgg",), "full": False},
    "sources that are no targets": {**FEW, **SAVED},
    "defended": {**FEW, "models": FOUR, "images": 130, "defences": ("jpeg",)},
    "targeted": {**SMALL, "models": THREE, "full": False, "aimed": True},
    "audit": {**FEW, "sources": ("vgg", "resnet"), "targets": ("vit",)},
    "incomparable sweeps": {"sweeps": {"one": {**FEW, **PAIR}, "two": {**LATER, **PAIR}}},
    "many models": {**FEW, **SMALL, "models": [f"model_{i}" for i in range(9)], "images": 60},
}


@pytest.fixture(name="make_sweep")
def fixture_make_sweep(tmp_path: Path) -> Callable[..., Path]:
    """`make_sweep` in a folder of its own: one attack, two budgets, no diagnostics."""
    few = {"attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    return partial(make_sweep, tmp_path / "sweep", **few)


@pytest.fixture(scope="session")
def made_up(results_of_kind: Callable[[str], Results]) -> Callable[[str], Report]:
    """A function that returns the report of a kind of made-up sweep."""
    return cache(lambda kind: build_report(results_of_kind(kind)))


@pytest.fixture(scope="session")
def results_of_kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """A function that returns the results of a kind of made-up sweep."""

    @cache
    def make(kind: str) -> Results:
        place, words = tmp_path_factory.mktemp("sweep"), KINDS[kind]
        sweeps = words.get("sweeps", {"sweep": words})
        folders = [make_sweep(place / name, **its) for name, its in sweeps.items()]
        results = results_of(find_jobs(folders))
        return audited(results) if kind == "audit" else results

    return make


@pytest.fixture(scope="session")
def written(made_up, tmp_path_factory):
    """A function that returns the page of a kind of sweep, which is written once and only read."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def write(kind: str):
        path = folder / kind / "report.html"
        path.parent.mkdir()
        write_page(made_up(kind), path, folder / "cache")
        return path

    return write


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(chromium, written):
    """A function that opens a page; it must log nothing and request nothing."""
    noise: list[str] = []
    contexts = []

    def open_page(kind: str, address: str = "", **settings):
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}} | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: noise.append(message.text))
        tab.on("pageerror", lambda error: noise.append(str(error)))
        tab.on("request", lambda request: noise.append(request.url))
        tab.goto(written(kind).as_uri() + address)
        drawn(tab)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    asked = [line for line in noise if not line.startswith(("file:", "data:", "blob:"))]
    assert asked == []


def drawn(tab) -> None:
    tab.wait_for_selector("body[data-drawn]", state="attached")


def make_sweep(
    folder: Path,
    models: Sequence[str] = ("vgg", "resnet", "vit"),
    attacks: Sequence[str] = ("fgsm", "bim"),
    images: int = 120,
    classes: Sequence[str] = ("cat", "dog", "owl", "fox", "elk", "ape"),
    budgets: Sequence[float] = BUDGETS,
    full: bool = True,
    missing: bool = False,
    sources: Sequence[str] = (),
    first: int = 0,
    seed: int = 0,
    overrides: Sequence[str] = (),
    alike: Sequence[str] = (),
    defences: Sequence[str] = (),
    targets: Sequence[str] = (),
    aimed: bool = False,
    storage: str = "float32",
    files: bool = False,
) -> Path:
    """Write a job for every attack and source (none: every model), each evaluated on all models.

    With `targets`, only these are evaluated on adversarial images.

    The reference budget is 8/255, or the last one. Full jobs (the first attack) hold diagnostics,
    a control, another storage and pictures; missing ones NaN, as gradients that vanish give.
    Models that are `alike` have equal weights. Behind `defences` attacks are weaker.
    The images are those from the number `first` on, though each sweep counts them from 0.
    With `files` each class has a folder of files `0000.png`, `0001.png`, ...
    With `aimed`, attacks aim for the next class.
    """
    random = np.random.default_rng(first)
    reference = 8.0 if 8.0 in budgets else budgets[-1]
    label = random.integers(len(classes), size=images)
    initial = random.beta(4, 1, size=(len(models), images))  # confidence in the true class
    random = np.random.default_rng([first, seed]) if seed else random
    settings: dict[str, Any] = {"kind": "crafted", "norm": "linf", "settings": {}}
    settings["target_label"] = "next" if aimed else None
    jobs = [(attack, source) for attack in attacks for source in sources or models]
    for number, (attack, source) in enumerate(jobs):
        here = folder / f"{number}-job"
        here.mkdir(parents=True)
        digests = {name: f"{'alike' if name in alike else name}-digest" for name in models}
        own = source.partition("@")[0]
        known = dict.fromkeys([*(targets or models), own])
        record = make_record(
            **{"key": f"k{attack}{source}{first}{images}{seed}{models}{budgets}", "seed": seed},
            **{"images": images, "class_names": classes, "data": f"data{first}-{images}"},
            **{"source": source, "targets": targets or models, "attack": attack},
            **{"budgets": budgets, "reference": reference, "overrides": overrides},
            **{"defences": tuple(defences), "storage": storage},
            config={"dataset": {"name": "made-up"}, "attack": settings},
            weights={name: digests.get(name, f"{name}-digest") for name in known},
        )
        strength = random.uniform(0.05, 0.3, size=(len(models), 1, 1))
        for member in own.split("+"):
            strength[list(models).index(member)] += 0.3
        rows = _predictions(random, label, initial, models, budgets, strength)
        if targets:
            on_targets = (rows["eps_255"] == 0) | rows["target"].isin(targets)
            needed = rows["target"].isin([*targets, source])
            rows = rows[on_targets & needed].reset_index(drop=True)
        for defence in defences:
            behind = _predictions(random, label, initial, models, budgets, strength / 2)
            rows = pd.concat([rows, behind.assign(defence=defence)], ignore_index=True)
        if aimed:
            next_class = (rows["label"] + 1) % len(classes)
            rows["target_label"] = next_class.astype("Int64").where(rows["eps_255"] > 0)
        clean = rows[(rows["eps_255"] == 0) & (rows["target"] == source.split("+")[0])]
        clean = clean.assign(target=source)[: len(label) * ("+" in source)]
        tables = {"predictions": pd.concat([rows, clean], ignore_index=True)}
        numbers = tables["predictions"]["index"] + first
        tables["predictions"]["image"] = numbers.map("{:016x}".format)
        tables["top_five"] = tables["predictions"].query("eps_255 == 0 or index < 40")
        if files:
            listed = pd.DataFrame({"index": range(images), "label": label})
            paths = zip(label, listed.groupby("label").cumcount(), strict=True)
            paths = [f"{classes[its]}/{at:04d}.png" for its, at in paths]
            listed.assign(file=paths).to_csv(here / "images.csv", index=False)
        if full and attack == attacks[0]:
            other = "float32" if storage == "uint8" else "uint8"
            for name, part in ((other, 0.9), ("noise", 0.1)):
                weak = _predictions(random, label, initial, models, budgets, part * strength)
                tables[f"predictions-{name}"] = weak.assign(image="")
            tables |= _diagnostics(random, label, models, reference, missing)
            _pictures(here, random, label, budgets)
        for name, table in tables.items():
            table = pa.Table.from_pandas(table, preserve_index=False)
            pq.write_table(with_record(table, name, record), here / f"{name}.parquet")
    return folder


def _rows(label, **axes) -> pd.DataFrame:
    """Return a row for every combination of the axes, and image."""
    product = pd.MultiIndex.from_product([*axes.values(), range(len(label))])
    rows = product.to_frame(index=False, name=[*axes, "index"])
    return rows.assign(label=label[rows["index"]])


def _predictions(random, label, initial, models, budgets, strength) -> pd.DataFrame:
    """Let the true class lose confidence with the budget, image by image."""
    eps = np.array([0.0, *budgets])
    rows = _rows(label, target=models, eps_255=eps).assign(defence="none", draws=1)
    noise = random.normal(0, 0.1, size=(len(models), len(eps), len(label))) * (eps > 0)[:, None]
    true = initial[:, None, :] - strength * np.sqrt(eps)[:, None] * 0.5 + noise
    true = np.clip(true, 0.01, 0.99).ravel()
    classes = int(label.max()) + 1  # one class: nothing else can be predicted
    own, other, third = ((rows["label"].to_numpy() + k) % classes for k in (0, 1, 2))
    correct, rest, none = true >= 0.5, 1 - true, np.zeros(len(true))
    top = [np.where(correct, own, other), np.where(correct, other, own), third, third, third]
    shares = [np.maximum(true, rest), np.minimum(true, rest), none, none, none]
    unknown = dict.fromkeys(("target_label", "draws_correct", "iteration"))
    return rows.assign(
        **{name: pd.array([pd.NA] * len(rows), dtype="Int64") for name in unknown},
        **{"gradients": np.nan, "forwards": np.nan},
        **{"predicted": top[0], "confidence": shares[0], "true_confidence": true},
        top5_classes=[*np.stack(top[:classes], -1)],
        top5_confidences=[*np.stack(shares[:classes], -1)],
    )


def _diagnostics(random, label, models, reference, missing) -> dict[str, pd.DataFrame]:
    """Return spectra, filtered perturbations, low-passed images and gradient similarity."""

    def predicted(**axes):
        rows = _rows(label, target=models, **axes)
        wrong = random.random(len(rows)) < 0.4
        classes = np.where(wrong, (rows["label"] + 1) % (label.max() + 1), rows["label"])
        return rows.assign(predicted=classes, confidence=0.7, true_confidence=0.5)

    low, share = np.linspace(0.0, 0.65, 12), np.exp(-np.arange(12.0))
    band = {"eps_255": reference, "frequency_low": low, "frequency_high": low + 0.05}
    spectrum = {**band, "n": len(label), "share": share}
    known = {"kind": "image", **spectrum, "share": share * (np.nan if missing else 1)}
    bands = ("all", "low", "mid", "high")
    filtered = predicted(band=bands, kind=("attack", "noise")).assign(eps_255=reference)
    cosine = random.uniform(0, 0.4, size=(len(models), len(label)))
    cosine[:, : len(label) * missing // 2] = np.nan
    images = {"eps_255": reference, "index": np.arange(len(label))}
    return {
        "visibility": pd.DataFrame(
            {**images, "rms_255": 5.0, "linf_255": reference, "psnr": 33.0, "ssim": 0.9}
        ),
        "spectra": pd.concat(
            [pd.DataFrame(known), pd.DataFrame({"kind": "perturbation", **spectrum})]
        ),
        "filtered": filtered.assign(frequency_low=0.0, frequency_high=0.25),
        "low_passed": predicted(cutoff=(0.1, 0.2, 0.4)),
        "similarity": _rows(label, target=models).assign(cosine=cosine.ravel()),
    }


def _pictures(folder: Path, random, label, budgets) -> None:
    """Store pictures of the first images, without a perturbation."""
    clean = random.integers(0, 255, size=(len(label), 3, SIDE, SIDE), dtype=np.uint8)
    few = min(3, len(label))
    shown = {"index": np.arange(few), "clean": clean[:few], "eps_255": np.array(budgets)}
    np.savez(folder / "images.npz", **shown, adversarial=np.stack([clean[:few]] * len(budgets)))
