"""Attacks at own settings and at equal cost: their files, their sweeps, and a table."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.analysis import Outcomes, outcomes_of
from src.artifacts import FinishedJob, find_jobs
from src.config import CONF, AttackSettings
from src.utils.files import atomic_write
from src.utils.hydra_versions import VERSION_BASE
from src.utils.model_names import ModelRef

TABLE = Path(__file__).parents[1] / "docs" / "results" / "costs.parquet"
COLUMNS = ["attack", "targeted", "source", "target", "defence", "gradients", "images"]
COLUMNS += ["counted", "success", "commit", "created", "versions"]
COSTS = (10, 100)
"""Gradients an image that all attacks are brought to, beside those of their own settings."""
MOST, MOST_OF_TRANSFORMERS = 400, 100
"""Most gradients an image of own settings, and from a vision transformer."""
LEFT_OUT = {"none", "saved", "torchattacks", "transferattack"}
LEFT_OUT |= {"llc", "illc", "fgsm_l2", "pgd_l2"}
REPEATED = ("copies", "samples", "neighbours", "inner_steps", "scales", "admixed")
"""Copies that each step takes; the way of many copies does not change `scales`."""
STEPS, NEAR = 10, 0.05
"""Steps of an attack with many copies, and the largest difference from a cost, as its share."""
TARGETED = ("mi", "mi_di_ti", "logit_mi_di_ti", "cfm", "s4st")


def gradients(settings: Mapping[str, Any], members: int = 1) -> int:
    """Return the gradients that an attack takes of one budget and all members."""
    count = _attack(settings).gradients(1, members)
    assert count is not None
    return round(members * count)


def _attack(settings: Mapping[str, Any]) -> AttackSettings:
    keys = {key: value for key, value in settings.items() if key != "about"}
    return AttackSettings(name="any", label="", about=settings["about"], settings=keys)


def at_equal_cost(settings: Mapping[str, Any], cost: int, way: str) -> dict[str, Any]:
    """Return the settings with which an attack is compared at equal cost, from one source.

    Args:
        settings: Keys of the attack's file.
        cost: Gradients per image.
        way: `steps`: as many steps as come near, with the fewest copies. `copies`: ten steps, one
            below 20 gradients, of as many copies as come near. Steps are max(eps / 10, eps / steps)
            long.

    Raises:
        ValueError: The attack has no copies, states no cost, or no number comes near enough.
    """
    copies = [key for key in REPEATED if key in settings]
    searched = [key for key in copies if key != "scales"] if way == "copies" else ["steps"]
    if settings["about"]["category"] == "fitted" or {*searched[:1]} - {*settings} or not searched:
        raise ValueError(f"There are no {way}.")
    fixed = {"steps": 1 if cost < 2 * STEPS else STEPS}
    if way == "steps":
        fixed = {key: max(1, _numbers(settings, key)[0]) for key in copies}
    changed = {**settings, **fixed}
    near = dict[int, float]()
    for number in _numbers(changed, searched[0]):
        near[number] = _count({**changed, searched[0]: number}) or 0
        if near[number] >= cost:
            break
    number = min(near, key=lambda number: abs(near[number] - cost))
    if abs(near[number] - cost) > NEAR * cost:
        raise ValueError(f"No number of {way} comes near.")
    found = {**changed, searched[0]: number}
    chosen = {key: found[key] for key in ("steps", *copies)}
    if "relative_step_size" in found:
        chosen["relative_step_size"] = max(1 / STEPS, 1 / found["steps"])
    return chosen


def _numbers(settings: Mapping[str, Any], key: str) -> range:
    """Return the numbers that an attack takes for a setting, to the highest cost."""
    lowest = next((n for n in range(100) if _count({**settings, key: n}) is not None), None)
    if lowest is None:
        raise ValueError(f"{key} has no number with a known cost.")
    return range(lowest, lowest + max(COSTS) + 2)


def _count(settings: Mapping[str, Any]) -> float | None:
    return _attack(settings).gradients(1, 1)


def files(members: int, targeted: bool, cap: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the attacks' files by name, such as `mi_own`, of those that are ensembles' or not.

    Attacks on single sources without a target label have files of their ways, as `mi_10_steps`.
    """
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        for name in sorted({path.stem for path in CONF.glob("attack/*.yaml")} - LEFT_OUT):
            settings: Any = OmegaConf.to_container(compose(f"attack/{name}").attack)
            only = settings["about"].get("targeted") == "only" or name in ("cfm", "s4st")
            chosen = TARGETED if targeted else ENSEMBLES if members > 1 else (name,) * (not only)
            if name not in chosen or settings["about"].get("members", 1) > members:
                continue
            label = {"target_label": "random"} if targeted else {}
            if gradients(settings, members) <= cap:
                yield f"{name}_own", {"defaults": [name, "_self_"], **label}
            ways = product(COSTS, ("steps", "copies"))
            for cost, way in ways if members == 1 and not targeted else ():
                with suppress(ValueError):
                    changes = at_equal_cost(settings, cost, way)
                    yield f"{name}_{cost}_{way}", {"defaults": [name, "_self_"], **changes}


ENSEMBLES = ("bim", "mi", "cwa", "svre")
SOURCES = {
    "vgg": "vgg_small",
    "resnet": "resnet_small",
    "vit": "vit_small",
    "ensemble": "[vgg_small,resnet_small]",
    "targeted": "resnet_small",
}
"""Sources of the sweeps by their names."""


def run(name: str, folder: Path) -> int:
    """Write an attack's files in a folder, and run those of own settings that the table lacks."""
    source, members = SOURCES[name], 2 if name == "ensemble" else 1
    cap = MOST_OF_TRANSFORMERS if name == "vit" else MOST
    written = folder / name / "conf" / "attack"  # a folder beside it would be a group of files
    written.mkdir(parents=True, exist_ok=True)
    attacks = dict(files(members, name == "targeted", cap))
    for attack, settings in attacks.items():
        (written / f"{attack}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    known = pd.read_parquet(TABLE) if TABLE.exists() else pd.DataFrame(columns=COLUMNS)
    known = known[known["source"] == source.strip("[]").replace(",", "+")]
    known = known[known["targeted"] == (name == "targeted")]
    done = {f"{attack}_own" for attack in known["attack"]}
    left = sorted(name for name in attacks.keys() - done if name.endswith("_own"))
    words = [
        "-m",
        "--config-dir",
        str(written.parent),
        "experiment=demo",
        f"source={source}",
        f"attack={','.join(left)}",
        "epsilon.grid=[4]",
        "tracking=none",
        "report=none",
        "trainer.progress_bar=false",
        f"hydra.sweep.dir={folder / name / 'sweep'}",
        f"cache.dir={folder / 'cache'}",
    ]
    return subprocess.run([sys.executable, "-m", "src.main", *words], cwd=folder).returncode


def pack(folder: Path) -> None:
    """Add the finished jobs at own settings in a folder to the table, those of its attacks anew.

    A row is an attack, a source and a target. `counted` and `success` are the bits of images in
    their order: whether source and target are right on the clean image, and whether the attack then
    succeeds.
    """
    rows: list[list[Any]] = []
    for job in find_jobs([path for path in folder.glob("*/sweep*") if path.is_dir()]):
        attack, _, setting = job.record.attack.rpartition("_")
        rows += packed_rows(job, attack) if setting == "own" else []
    new = pd.DataFrame(rows, columns=COLUMNS)
    if TABLE.exists():
        new = pd.concat([pd.read_parquet(TABLE), new], ignore_index=True)
    keys = COLUMNS[:5]
    new = new.drop_duplicates(keys, keep="last").sort_values(keys, ignore_index=True)
    with atomic_write(TABLE) as temporary:
        new.to_parquet(temporary, compression="zstd", index=False)


def packed_rows(job: FinishedJob, attack: str) -> list[list[Any]]:
    """Return a job's rows of the table, with the values of `COLUMNS`."""
    rows, own = [], job.record
    place = attack, own.source, own.targets, "joint", own.reference
    found = outcomes_of(job.predictions, *place)
    for target, counted, fooled in zip(found.targets, *found.counted, *found.fooled, strict=True):
        packed = [np.packbits(each).tobytes() for each in (counted, fooled)]
        origin = [attack, bool(found.targeted[0]), own.source, *target.columns]
        made = [own.commit, own.created, json.dumps(own.versions, sort_keys=True)]
        rows.append([*origin, own.gradients / own.images, own.images, *packed, *made])
    job.forget()
    return rows


def unpacked(table: pd.DataFrame) -> Outcomes:
    """Return the outcomes of the packed rows, which are of the same images."""
    names = table["attack"] + table["targeted"].map({True: " (target_label=random)", False: ""})
    jobs = list(dict.fromkeys(zip(names, table["source"], strict=True)))
    targets, images = list(map(ModelRef.parse, table["target"].unique())), table["images"].iloc[0]
    counted, fooled = np.zeros((2, len(jobs), len(targets), images), bool)
    targeted = np.array([name.endswith(")") for name, _ in jobs])
    row: Any
    for job, row in zip(zip(names, table["source"], strict=True), table.itertuples(), strict=True):
        place = jobs.index(job), targets.index(ModelRef.parse(row.target))
        for masks, bits in ((counted, row.counted), (fooled, row.success)):
            masks[place] = np.unpackbits(np.frombuffer(bits, np.uint8), count=images)
    fooled &= counted
    masks = counted.any(axis=-1), counted, fooled, counted & ~fooled
    return Outcomes(jobs, targets, np.arange(images), targeted, *masks)


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        pack(Path(sys.argv[2]))
    else:
        sys.exit(run(sys.argv[1], Path(sys.argv[2]).resolve()))
