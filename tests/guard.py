"""The same commands at an earlier commit and here, and every table that they leave compared.

    make equal BASE=COMMIT

checks that a change that should move no number moves none: rows, columns and values of all tables
must be equal to the bit. Tables that differ are named, and the exit code is then 1. Takes minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import replaced

HERE = Path(__file__).resolve().parents[1]
COMMON = [
    *("experiment=demo", "n_images=8", "epsilon.grid=[2,8]", "epsilon.reference=8", "trainer=cpu"),
    *("source=resnet_small", "targets=[resnet_small,vgg_small]", "trainer.batch_size=4"),
    *("trainer.progress_bar=false", "tracking=none", "report=none"),
]
COMMANDS = {
    "targeted": ["attack=di", "attack.target_label=next", "attack.steps=3"],
    "layers": ["attack=sgm", "attack.steps=3"],
    "ensemble": ["attack=mi", "source=[vgg_small,resnet_small]", "ensemble=loss"],
    "defended": [
        *("attack=mi", "attack.norm=l2", "source_defence=random_resize_pad", "source_draws=2"),
        "defences=[none,jpeg,random_resize_pad]",
    ],
    "full": ["attack=bim", "diagnostics=full", "controls=true", "save_adversarial=true"],
    "saved": ["attack=saved", "attack.path=full/adversarial", "epsilon.reference=null"],
}
EQUAL = COMMANDS | {
    "full": replaced(COMMANDS["full"], "attack=mi", "defences=[none,jpeg]"),
    "fitted": ["attack=uap", "attack.fit_n_images=50", "attack.epochs=1"],
}
FRAME = """
from src import load_classifier, transfer
from src.data import load_dataset
batch = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})[:8]
a, b = (load_classifier(name, "experiment=demo") for name in ("vgg_small", "resnet_small"))
frame = transfer({"a": a, "a+b": [a, b]}, {"a": a, "b": b}, batch.images, batch.labels,
                 attacks=["fgsm", "di"], controls=True, progress_bar=False)
frame.predictions.to_csv("frame.csv", index=False)
"""


def run_all(checkout: Path, place: Path) -> None:
    """Run all commands in a folder, with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    for name, words in EQUAL.items():
        command = ["-m", "src.main", *replaced(COMMON, *words), f"hydra.run.dir={name}"]
        subprocess.run([sys.executable, *command], cwd=place, env=environment, check=True)


def recorded_keys(path: Path) -> list[str]:
    """Return the keys of the record that a table of predictions carries."""
    metadata = pq.read_schema(path).metadata
    return sorted(json.loads(next(iter(metadata.values())))["job"])


def differences(before: Path, after: Path) -> Iterator[str]:
    """Yield a line for each table that differs, and for each that only one place has."""
    places = [
        {path.relative_to(place) for path in place.rglob("*.parquet")} for place in (before, after)
    ]
    tables = {path for path in places[0] | places[1] if path.parts[0] in EQUAL}
    for path in sorted(tables):
        if any(path not in place for place in places):
            yield f"{path}: {'new' if path in places[1] else 'missing'}"
        elif not (new := pq.read_table(after / path)).equals(pq.read_table(before / path)):
            yield f"{path}: its {len(new)} rows differ"
    if not tables:
        yield "no tables"


def main() -> None:
    """Run the commands at a commit and here, and compare."""
    place = Path(tempfile.mkdtemp(prefix="equal-"))
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--detach", place / "base", sys.argv[1]], check=True)
    try:
        for name, checkout in (("before", place / "base"), ("after", HERE)):
            (place / name).mkdir()
            run_all(checkout, place / name)
    finally:
        subprocess.run([*git, "remove", "--force", place / "base"], check=True)
    lines = list(differences(place / "before", place / "after"))
    print("\n".join(lines) or "equal", place, sep="\n")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
