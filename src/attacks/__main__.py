"""List the attacks, or the classes of a TransferAttack clone that run."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import yaml

from ..api.classifier import load_classifier
from ..config.command_line import CommandParser, run_command
from ..config.resolvers import CONF
from ..data import Batch, load_dataset
from ..models import PixelClassifier
from ..utils.about import About, Category
from ..utils.package import command
from ..utils.refusals import first_line
from . import transferattack
from .libraries import defaults_of
from .transferattack_clone import open_clone

_DATA, _EPS, _SECONDS = "cifar10_mini", 8 / 255, 40


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(command("attacks"), description=__doc__)
    parser.add_argument("library", choices=["transferattack"], nargs="?", help="to try")
    parser.add_argument(
        "--root", default=os.environ.get("TRANSFERATTACK"), help="TransferAttack's folder"
    )
    parser.add_argument("--source", default="resnet_small", help=f"name of a model for {_DATA}")
    return run_command(_list_or_try, parser.parse_intermixed_args, words)


def _list_or_try(library: str | None, root: str, source: str) -> None:
    if library:
        _try_classes(root, source)
        return
    heads = ("attack=", "name", "year", "category", "does", "gradients per image", "paper")
    rows = [
        (name, it.name, str(it.year or ""), it.category, it.does, cost(it), it.paper)
        for name, _, it in listed()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def listed() -> Iterator[tuple[str, str, About]]:
    """Yield the name, the `_target_` and the statements of each attack's file, by category."""
    paths = sorted((CONF / "attack").glob("*.yaml"))
    files = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    stated = {name: About(**keys["about"]) for name, keys in files.items() if "about" in keys}
    for category in get_args(Category):
        for name, about in stated.items():
            if about.category == category:
                yield name, files[name]["_target_"], about


def cost(about: About) -> str:
    """Return the gradients per image as text."""
    return str(about.gradients).replace(" * ", " ")


def _try_classes(root: str, source: str) -> None:
    names = [*open_clone(root).attack_zoo]
    model = load_classifier(source, f"dataset={_DATA}")
    batch = load_dataset("test", {"_target_": f"src.data.{_DATA}.{_DATA}"})[:2]
    signal.signal(signal.SIGALRM, _give_up)
    runs = 0
    for name in names:
        reason = _try(name, root, model, batch)
        runs += not reason
        print(f"{name:16}", f"no   {reason}" if reason else "yes", flush=True)
    print(f"{runs} of {len(names)} classes of transferattack run on {source}.")


def _try(name: str, root: str, model: PixelClassifier, batch: Batch) -> str:
    """Return why a class does not run on a model, or an empty string if it does."""
    signal.alarm(_SECONDS)
    try:
        attack: Any = getattr(transferattack, name).in_root(root)
        defaults = defaults_of(attack.__wrapped__)
        keywords: dict[str, Any] = {key: 2 for key in ("epoch", "steps") if key in defaults}
        keywords["targeted"] = defaults.get("targeted", False) is not False
        labels = (batch.labels + keywords["targeted"]) % 10
        made = attack(model, batch.images / 255, labels, _EPS, true_labels=batch.labels, **keywords)
    except Exception as error:  # the clone's code may raise anything
        error_type = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return f"{error_type}{first_line(error)}".removeprefix(f"attack.name={name}: ")
    finally:
        signal.alarm(0)
    return "" if made.isfinite().all() else "it returns NaN or infinity"


def _give_up(*_: object) -> None:
    raise TimeoutError(f"no result after {_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
