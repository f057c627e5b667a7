"""A zoo of small networks: which source to attack, what predicts it, and how much is luck."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from findings.costs import COLUMNS, packed_rows, unpacked
from findings.luck import luck_of
from findings.measurements import DOOR
from findings.predictors import all_pair_measures, mutual_information
from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.source_choice import Related, transfer_of
from src.artifacts.jobs import FinishedJob, find_jobs
from src.artifacts.likeness import RELATED_BY, overlaps
from src.report.source_choice import Frames, SourceChoice, choice_of
from src.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
OUTCOMES, MEASURES = (
    ROOT / "docs" / "results" / f"sources-{name}.parquet" for name in ("outcomes", "measures")
)
SMALL, RESNET = "src.models.small", "src.models.small.resnet_small"
CNN = ["training=small", "training.epochs=12"]
ADAMW = ["training.optimizer=adamw", "training.learning_rate=1e-3", "training.weight_decay=0.05"]
ADAMW += ["training.gradient_clip=1"]
FLOAT = ["training=small", "training.precision=32-true"]
MIXER = {
    "_target_": "timm.models.mlp_mixer.MlpMixer",
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 96,
    "num_blocks": 6,
}
NETWORKS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "deep": ({"_target_": RESNET, "widths": [24, 48, 96], "blocks": 4}, "stage2", CNN),
    "wide": ({"_target_": RESNET, "widths": [48, 96, 192], "blocks": 1}, "stage2", CNN),
    "mixer": (MIXER, "blocks.1", [*CNN, *ADAMW]),
    "mobilenet_small": ({"_target_": f"{SMALL}.mobilenet_small"}, "features.10", FLOAT),
    "vit_small": (
        {"_target_": f"{SMALL}.vit_small"},
        "blocks.1",
        [*FLOAT, "training.epochs=20", *ADAMW],
    ),
}
"""Networks that are trained here: their sections, feature layers and recipes."""
TRAINED = ["deep", "deep_seed1", "wide", "wide_seed1", "mixer", "mixer_seed1"]
TRAINED += ["mobilenet_small_seed1", "vit_small_seed1"]
STORED = {"vgg_small_seed1": "features.22", "inception_small_seed1": "stage2"}
"""Second trainings whose weights are in docs/results/seeds/, with their feature layers."""
EMBEDDED = ["vgg_small", "resnet_small", "inception_small", "mobilenet_small", "vit_small"]
EMBEDDED += ["resnet_small_seed1", "resnet_small_robust"]
EARLY, EPOCHS = "resnet_early", (1, 2, 4, 8)
EARLY_WORDS = [*CNN, "training.seed=2", f"training.keep_epochs=[{','.join(map(str, EPOCHS))}]"]
TARGETS = [*EMBEDDED, *STORED, *TRAINED]
SOURCES = [*TARGETS, EARLY, *(f"{EARLY}.epoch{epoch}" for epoch in EPOCHS)]
IMAGES = 1000
SWEEPS = {
    "simple": ["attack=fgsm,bim,uap", f"n_images={IMAGES}"],
    "mi": ["attack=mi", f"n_images={IMAGES}", "diagnostics=sources", DOOR],
    "di": ["attack=di", "seed=0,1", f"n_images={IMAGES}"],
    "pgn": ["attack=pgn", "attack.samples=5", "n_images=200"],
}
"""Sweeps by name: their words."""


def write_models(folder: Path) -> None:
    """Write the models' files of a zoo; its weights are in `weights/` once they are trained."""
    models = folder / "mine" / "model"
    models.mkdir(parents=True, exist_ok=True)
    sections: dict[str, tuple[dict[str, Any], str, str | None]]
    sections = {EARLY: ({"_target_": RESNET}, "stage2", None)}
    for name in TRAINED:
        network, layer, _ = NETWORKS[name.removesuffix("_seed1")]
        file = folder / "weights" / f"{name}.safetensors"
        sections[name] = (network, layer, str(file) if file.exists() else None)
    for name, layer in STORED.items():
        base = name.removesuffix("_seed1")
        file = ROOT / "docs" / "results" / "seeds" / f"{base}-1.safetensors"
        sections[name] = ({"_target_": f"{SMALL}.{base}"}, layer, str(file))
    for name, (network, layer, weights) in sections.items():
        section = {
            "defaults": ["_small_network@_here_", "_self_"],
            "network": network,
            "weights": weights,
            "feature_layer": layer,
        }
        text = f"# @package model.{name}\n" + yaml.safe_dump(section, sort_keys=False)
        (models / f"{name}.yaml").write_text(text)


def command(folder: Path, data: Path, words: Sequence[str]) -> int:
    """Run the program on CIFAR-10's class folders, in a zoo's folder."""
    shared = ["--config-dir", str(folder / "mine"), "dataset=image_folder"]
    shared += [f"dataset.root={data}", f"cache.dir={folder / 'cache'}", "tracking=none"]
    line = [sys.executable, "-m", "src.main", *words, *shared, "report=none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # for the measurements
    return subprocess.run(line, cwd=folder, env=environment).returncode


def train(folder: Path, data: Path, names: Sequence[str] = ()) -> None:
    """Train the networks, or some of them, whose weights are missing; a stopped one goes on."""
    for name in names or [*TRAINED, EARLY]:
        write_models(folder)
        file = folder / "weights" / f"{name}.safetensors"
        if file.exists():
            continue
        words = EARLY_WORDS if name == EARLY else NETWORKS[name.removesuffix("_seed1")][2]
        seed = ["training.seed=1"] * name.endswith("_seed1")
        command(folder, data, ["attack=none", f"targets=[{name}]", *words, *seed])
        found = sorted((folder / "cache" / "checkpoints").glob(f"{name}-*.safetensors"))
        if found and name != EARLY:
            file.parent.mkdir(exist_ok=True)
            shutil.copy(found[0], file)


def attack(folder: Path, data: Path, sources: Sequence[str] = ()) -> None:
    """Run the sweeps from all sources, or some of them; what is done is in the cache."""
    write_models(folder)
    there = [path.stem for path in (folder / "weights").glob("*.safetensors")]
    targets = [name for name in TARGETS if name not in TRAINED or name in there]
    chosen = sources or [name for name in SOURCES if name in targets or EARLY in name]
    for name, words in SWEEPS.items():
        place = folder / "sweeps" / f"{name}-{chosen[0]}"
        common = [f"source={','.join(chosen)}", f"targets=[{','.join(targets)}]"]
        common += ["epsilon.grid=[4]", f"hydra.sweep.dir={place}", *EARLY_WORDS]
        command(folder, data, ["-m", *words, *common])


def pack(folder: Path) -> None:
    """Store the outcomes of all jobs, and the measures of both halves of the images."""
    rows: list[list[Any]] = []
    jobs = [job for job in find_jobs([folder / "sweeps"]) if job.attacked]
    for job in jobs:
        rows += packed_rows(job, job.attack, "own")
    table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:6])
    with atomic_write(OUTCOMES) as temporary:
        table.to_parquet(temporary, compression="zstd", index=False)
    with atomic_write(MEASURES) as temporary:
        _facts(jobs).to_parquet(temporary, compression="zstd", index=False)


def _facts(jobs: Sequence[FinishedJob]) -> pd.DataFrame:
    """Return what is known of models: `fact`, `number`, `source`, `target` and `value`.

    Facts are the measures (the number is the half of the images), `related`, and `clean N`, which
    tells what is right of N images, whose number it has.
    """
    models = list(dict.fromkeys(name for job in jobs for name in job.record.weights))
    parts, done = [], set[tuple[int, str]]()
    for job in jobs:
        count = job.record.images
        for model, its in job.clean.groupby("target", observed=True):
            if (count, str(model)) not in done:
                done.add((count, str(model)))
                right = (its["predicted"] == its["label"]).to_numpy(np.float64)
                facts = {"fact": f"clean {count}", "number": its["index"].to_numpy()}
                part = pd.DataFrame({**facts, "source": model, "target": model, "value": right})
                parts.append(part.sort_values("number"))
        job.forget()
        for one, other in combinations(job.record.weights, 2):
            if RELATED_BY & {*overlaps(job.record, one, other)}:
                row = {"fact": "related", "number": 0, "source": one, "target": other, "value": 1.0}
                parts.append(pd.DataFrame([row]))
    measured = [job for job in jobs if "output_changes" in job.files]
    index = np.unique(pd.concat(parts).query(f"fact == 'clean {IMAGES}'")["number"])
    measure = all_pair_measures(measured)
    for half in (0, 1):
        for name, frame in measure(index[half::2], models).items():
            part = frame.rename_axis("source").reset_index().melt("source", var_name="target")
            parts.append(part.assign(fact=name, number=half).dropna())
    return pd.concat(parts, ignore_index=True).drop_duplicates()


@cache
def _stored() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(OUTCOMES), pd.read_parquet(MEASURES)


def _outcomes(*attacks: str) -> tuple[ImageOutcomes, pd.DataFrame, Related]:
    """Return stored outcomes by some attacks, what is correct when clean, and what is related."""
    table, facts = _stored()
    table = table[table["attack"].str.partition(" ")[0].isin(attacks)]
    found = unpacked(table)
    found.jobs[:] = [(name.partition(" ")[0], source) for name, source in found.jobs]
    known = facts["fact"] == f"clean {len(found.index)}"
    clean = facts[known].pivot(index="number", columns="source", values="value")
    pairs = facts[facts["fact"] == "related"]
    related = {frozenset(pair) for pair in zip(pairs["source"], pairs["target"], strict=True)}
    return found, clean.astype(bool), lambda a, b: a == b or frozenset((a, b)) in related


def choice(*attacks: str) -> SourceChoice:
    """Return the choice of a source by some attacks, such as `mi`, from the stored tables.

    Measures are those of images at odd and even positions.
    """
    found, correct, related = _outcomes(*attacks)
    facts = _stored()[1]
    measures = facts[~facts["fact"].str.startswith(("clean", "related"))]

    def of_pairs(index: NDArray[np.int64], targets: Sequence[str]) -> Frames:
        half = correct.index.get_loc(index[0])
        rows = measures[measures["number"] == half]
        stored = {
            str(name): its.pivot(index="source", columns="target", values="value")
            for name, its in rows.groupby("fact", sort=False)
        }
        return {"information": mutual_information(correct.loc[index]), **stored}

    return choice_of("image_folder, eps = 4/255, joint", found, correct, of_pairs, related)


def luck_rows(*attacks: str) -> pd.DataFrame:
    """Return `luck_of` some attacks, from the stored tables."""
    found, correct, related = _outcomes(*attacks)
    digests = {str(name): str(name) for name in correct}
    names = [name for name, _ in found.jobs]
    return luck_of(found, names, [digests] * len(found.jobs), related)


ATTACKS = ("fgsm", "bim", "mi", "di", "pgn", "uap")


@cache
def zoo() -> dict[str, SourceChoice]:
    """Return the choice of a source by each attack."""
    return {attack: choice(attack) for attack in ATTACKS}


def source_rows() -> pd.DataFrame:
    """Return the sources by their success under `mi`: a column per attack, and `own` under `mi`."""
    first = zoo()["mi"].profiles.set_index("source")
    parts = [
        zoo()[attack].profiles.set_index("source")["success"].rename(attack) for attack in ATTACKS
    ]
    return pd.concat([first["own"], *parts], axis=1)


def success_under_joint(attack: str, source: str) -> float:
    """Return mean success on unrelated networks, on the images that each counts for the source."""
    found, _, related = _outcomes(attack)
    its = transfer_of(found)
    place = its.sources.index(source)
    others = [at for at, name in enumerate(its.targets) if not related(source, name)]
    scores = np.where(its.counts[place], its.scores[0, place], np.nan)[others]
    return float(np.nanmean(scores, axis=1).mean())


def choice_rows() -> pd.DataFrame:
    """Return, by attack, the means over targets of `choices`."""
    rows = {attack: zoo()[attack].choices.set_index("target").loc["mean"] for attack in ATTACKS}
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    place = Path(sys.argv[2]).resolve()
    if sys.argv[1] == "pack":
        pack(place)
    else:
        {"train": train, "attack": attack}[sys.argv[1]](place, Path(sys.argv[3]), sys.argv[4:])
