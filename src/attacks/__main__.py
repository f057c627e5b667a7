"""Command line that tries the classes of a clone of TransferAttack on a network."""

import argparse
import os
import signal
from functools import partial
from inspect import signature
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from src.api.classifier import load_classifier
from src.attacks import transferattack
from src.attacks.external.transferattack import VARIABLE, names
from src.config.command_line import command_line
from src.data import load_dataset
from src.models import PixelClassifier
from src.utils.progress import with_progress
from src.utils.refusals import first_line

_DATA = "cifar10_mini"
_EPS = 8 / 255


def main() -> None:
    """Run the command line."""
    command_line(_try_classes)


def _try_classes() -> None:
    parser = argparse.ArgumentParser("python -m src.attacks", description=__doc__)
    parser.add_argument("library", choices=["transferattack"])
    parser.add_argument("--root", default=os.environ.get(VARIABLE), help="folder of the clone")
    parser.add_argument("--source", default="resnet_small", help=f"a model, on {_DATA}")
    parser.add_argument("--seconds", type=int, default=40, help="limit for each class")
    arguments = parser.parse_args()
    model = load_classifier(arguments.source, f"dataset={_DATA}")
    classes = names(arguments.root)
    table = Table("class", f"runs on {arguments.source}", "reason", box=None, pad_edge=False)
    count = 0
    for name in with_progress(classes, "classes", len(classes)):
        reason = _try(name, arguments.root, model, arguments.seconds)
        count += not reason
        table.add_row(name, "no" if reason else "yes", reason)
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(f"{count} of {len(classes)} classes run on {arguments.source}.")


def _try(name: str, root: str, model: PixelClassifier, seconds: int) -> str:
    """Return the reason why a class does not run on a model; empty: it does."""
    batch = load_dataset("test", {"_target_": f"src.data.{_DATA}.{_DATA}"})[:2]
    images = batch.images / 255
    signal.signal(signal.SIGALRM, partial(_give_up, seconds))
    signal.alarm(seconds)
    try:
        attack: Any = getattr(transferattack, name).in_root(root)
        targeted = attack.about.targeted == "only"
        labels = (batch.labels + 1) % 10 if targeted else batch.labels
        keywords = {"epoch": 2} if "epoch" in signature(attack).parameters else {}
        true = {"true_labels": batch.labels, "targeted": targeted}
        made = attack(model, images, labels, _EPS, **true, **keywords)
    except Exception as error:  # of any kind, as the clone's code raises it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return f"{kind}{first_line(error)}".removeprefix(f"attack.name={name}: ")
    finally:
        signal.alarm(0)
    if not made.isfinite().all():
        return "its images are not finite"
    return "its images are the clean ones" if torch.equal(made, images) else ""


def _give_up(seconds: int, *_: object) -> None:
    raise TimeoutError(f"no result after {seconds} s")


if __name__ == "__main__":
    main()
