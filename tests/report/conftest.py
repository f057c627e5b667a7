"""Sweeps made up of random numbers, as files that a report reads."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.config.settings import ReportSettings
from src.experiment.provenance import JobRecord, with_record
from src.report.build import build_report
from src.report.page import Report
from src.report.stored import find_jobs

BUDGETS = (1.0, 2.0, 4.0, 8.0, 16.0)
FINE = (0.0234375, 1 / 3, 12345.678)
SIDE = 8  # pixels of an image
SETTINGS = ReportSettings(pairs=4)
HOSTILE = ("<script>alert(1)</script>", 'a"b\nc.d[0]', "it's, {x}\r & 'y'")
SMALL: dict[str, Any] = {"models": ("vgg", "vit"), "attacks": ("fgsm",)}
KINDS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "one image": {**SMALL, "images": 1, "classes": ("cat",)},
    "missing values": {**SMALL, "images": 45, "missing": True, "budgets": FINE},
    "hostile names": {
        **{"models": HOSTILE, "attacks": ("f.g[0]<b>",), "classes": HOSTILE},
        **{"budgets": (8.0,), "images": 60},
    },
    "many models": {
        **{"models": [f"model_{i}" for i in range(9)], "attacks": ("fgsm",)},
        **{"full": False, "images": 60, "budgets": (8.0,)},
    },
}


@pytest.fixture(name="make_sweep")
def fixture_make_sweep(tmp_path: Path) -> Callable[..., Path]:
    """`make_sweep` in a folder of its own, of one attack without diagnostics or other words."""
    return partial(make_sweep, tmp_path / "sweep", attacks=("fgsm",), full=False)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """A function that returns the report of a kind of made-up sweep."""
    built: dict[str, Report] = {}

    def make(kind: str) -> Report:
        if kind not in built:
            folder: Path = make_sweep(tmp_path_factory.mktemp("sweep"), **KINDS[kind])
            built[kind] = build_report(find_jobs([folder]), SETTINGS)
        return built[kind]

    return make


def make_sweep(
    folder: Path,
    models: Sequence[str] = ("vgg", "resnet", "vit"),
    attacks: Sequence[str] = ("fgsm", "bim"),
    images: int = 120,
    classes: Sequence[str] = ("cat", "dog", "owl", "fox", "elk", "ape"),
    budgets: Sequence[float] = BUDGETS,
    full: bool = True,
    missing: bool = False,
) -> Path:
    """Write a job for every attack and model, each evaluated on all models.

    The reference budget is 8/255, or the last one. A full one has diagnostics, a control, an 8-bit
    variant and pictures; a missing one NaN, as gradients that vanish give.
    """
    random = np.random.default_rng(0)
    reference = 8.0 if 8.0 in budgets else budgets[-1]
    label = random.integers(len(classes), size=images)
    initial = random.beta(4, 1, size=(len(models), images))  # confidence in the true class
    jobs = [(attack, source) for attack in attacks for source in models]
    for number, (attack, source) in enumerate(jobs):
        here = folder / f"{number}-job"
        here.mkdir(parents=True)
        config = {
            **{"source": source, "targets": list(models), "protocol": "joint", "seed": 0},
            **{"storage": "float32", "trainer": {"precision": "32-true"}},
            "attack": {"kind": "crafted", "name": attack, "norm": "linf", "steps": 1},
            "dataset": {"name": "made-up"},
            "model": {name: {"network": {"name": name}} for name in models},
            "epsilon": {"grid": list(budgets), "reference": reference},
        }
        weights = {name: f"{name}-digest" for name in models}
        record = JobRecord(f"k{number}", "data", images, tuple(classes), weights, config)
        strength = random.uniform(0.05, 0.3, size=(len(models), 1, 1))
        strength[list(models).index(source)] += 0.3
        tables = {"predictions": _predictions(random, label, initial, models, budgets, strength)}
        if full:
            for name, part in (("uint8", 0.9), ("noise", 0.1)):
                weak = _predictions(random, label, initial, models, budgets, part * strength)
                tables[f"predictions-{name}"] = weak
            tables |= _diagnostics(random, label, models, reference, missing)
            _pictures(here, random, label, budgets)
        for name, table in tables.items():
            pq.write_table(with_record(table, name, record), here / f"{name}.parquet")
    return folder


def _predictions(random, label, initial, models, budgets, strength) -> pa.Table:
    """Let the true class lose confidence with the budget, image by image."""
    eps = np.array([0.0, *budgets])
    shape = (len(models), len(eps), len(label))  # budgets and images of each target
    noise = random.normal(0, 0.1, size=shape) * (eps > 0)[None, :, None]
    true = initial[:, None, :] - strength * np.sqrt(eps)[None, :, None] * 0.5 + noise
    true = np.clip(true, 0.01, 0.99)
    classes = int(label.max()) + 1  # one class: nothing else can be predicted
    other = (label + 1) % classes
    correct = true >= 0.5
    predicted = np.where(correct, label, other)
    rest = 1 - true
    top = np.stack([np.maximum(true, rest), np.minimum(true, rest), *[np.zeros(shape)] * 3], -1)
    second = np.where(correct, other, label)
    names = np.stack([predicted, second, *[np.broadcast_to((label + 2) % classes, shape)] * 3], -1)
    wide = np.broadcast_to
    index = np.arange(len(label))
    return pa.table(
        {
            "index": wide(index, shape).ravel(),
            "label": wide(label, shape).ravel(),
            "target_label": pa.nulls(true.size, pa.int64()),
            "target": np.repeat(np.array(models, dtype=object), shape[1] * shape[2]),
            "eps_255": wide(eps[None, :, None], shape).ravel(),
            "predicted": predicted.ravel(),
            "confidence": np.maximum(true, rest).ravel(),
            "true_confidence": true.ravel(),
            "top5_classes": pa.FixedSizeListArray.from_arrays(names.ravel(), 5),
            "top5_confidences": pa.FixedSizeListArray.from_arrays(top.ravel(), 5),
        }
    )


def _diagnostics(random, label, models, reference, missing) -> dict[str, pa.Table]:
    """Return spectra, filtered perturbations, low-passed images and gradient similarity."""
    low = np.linspace(0.0, 0.65, 12)
    share = np.tile(np.exp(-np.arange(12.0)), 2)
    spectra = {
        "kind": ["image"] * 12 + ["perturbation"] * 12,
        "eps_255": np.repeat([0.0, reference], 12),
        "frequency_low": np.tile(low, 2),
        "frequency_high": np.tile(low + 0.05, 2),
        "coefficients": np.full(24, 8),
        "n": np.full(24, len(label)),
        "power": share,
        "share": np.where(np.arange(24) < 12 * missing, np.nan, share),
        "share_sd": share / 3,
    }
    bands = [
        (band, norm, kind)
        for band in ("all", "low", "mid", "high")
        for norm in ("linf", "l2")
        for kind in ("attack", "noise")
    ]
    cosine = random.uniform(0, 0.4, size=(len(models), len(label)))
    cosine[:, : len(label) * missing // 2] = np.nan
    return {
        "spectra": pa.table(spectra),
        "filtered": _predicted(
            random,
            label,
            models,
            bands,
            ("band", "norm", "kind"),
            eps_255=reference,
            frequency_low=0.0,
            frequency_high=0.25,
        ),
        "low_passed": _predicted(random, label, models, [(0.1,), (0.2,), (0.4,)], ("cutoff",)),
        "similarity": pa.table(
            {
                "index": np.tile(np.arange(len(label)), len(models)),
                "label": np.tile(label, len(models)),
                "target": np.repeat(np.array(models, dtype=object), len(label)),
                "cosine": cosine.ravel(),
                "sign_agreement": 0.5 + cosine.ravel() / 2,
            }
        ),
    }


def _predicted(random, label, models, cases, names, **constants) -> pa.Table:
    """Return a prediction for every model, case and image."""
    count = len(models) * len(cases)
    predicted = np.where(
        random.random((count, len(label))) < 0.6, label, (label + 1) % (label.max() + 1)
    )
    each = [np.repeat(np.array(list(values)), len(label)) for values in zip(*cases, strict=True)]
    columns = {name: np.tile(values, len(models)) for name, values in zip(names, each, strict=True)}
    size = count * len(label)
    return pa.table(
        {
            "index": np.tile(np.arange(len(label)), count),
            "label": np.tile(label, count),
            "target": np.repeat(np.array(models, dtype=object), len(cases) * len(label)),
            "predicted": predicted.ravel(),
            "confidence": np.full(size, 0.7),
            "true_confidence": np.full(size, 0.5),
            **columns,
            **{name: np.full(size, value) for name, value in constants.items()},
        }
    )


def _pictures(folder: Path, random, label, budgets) -> None:
    """Store example images, and clean images for the galleries."""
    clean = random.integers(0, 255, size=(len(label), 3, SIDE, SIDE), dtype=np.uint8)
    few = slice(0, min(3, len(label)))
    changed = np.stack([clean[few] / 255 for _ in budgets]).astype(np.float32)
    index = np.arange(len(label))
    np.savez(
        folder / "examples.npz",
        index=index[few],
        label=label[few],
        eps_255=np.array(budgets),
        clean=clean[few],
        adversarial=changed,
    )
    np.savez(folder / "images.npz", index=index, clean=clean)
