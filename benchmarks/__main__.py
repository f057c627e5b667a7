"""Measure the program: `python -m benchmarks torchattacks`, `attacks` or `gpu`.

`torchattacks` compares whole sweeps with that library, `attacks` each attack with the bare
gradients that it takes, and `gpu` checks and measures this machine's GPU.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.attacks import costs
from benchmarks.beside import Plan, compare
from benchmarks.gpu import PARTS, check
from benchmarks.theirs import ATTACKS
from src.artifacts import git_commit
from src.utils.files import write_text

TOLD = {"torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "mlflow", "numpy"}
TOLD |= {"transferability", "torchattacks"}
"""Packages whose versions are noted."""


def main() -> None:
    """Run what the command line asks for; print tables and write `results.json`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _parser().parse_args()
    folder = Path(options.folder).absolute()
    if options.what == "gpu":
        sys.exit(check(options.tiny, options.parts, folder, _about(options)))
    found = _about(options) | {"results": []}
    try:
        for one in _results(options, folder):
            found["results"].append(one)
            write_text(folder / "results.json", json.dumps(found, indent=1))
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"files: {folder / 'results.json'}")


def _results(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    if options.what == "attacks":
        yield from costs(options.rounds)
        return
    if find_spec("torchattacks") is None:
        raise ValueError("torchattacks is not installed; make setup installs it.")
    budgets = tuple(sorted(options.budgets))
    plan = Plan(folder, options.images, budgets, options.batch_size, options.threads)
    for attack in options.attacks:
        yield compare(plan, attack, options.rounds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    names: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    add = parser.add_argument
    add("what", choices=["torchattacks", "attacks", "gpu"])
    add("--attacks", choices=ATTACKS, default=list(ATTACKS), **names, help=", ".join(ATTACKS))
    add("--images", type=_count, default=100)
    add("--budgets", type=_count, nargs="+", default=[8], help="in units of 1/255")
    add("--batch-size", type=_count, default=50)
    add("--rounds", type=_count, default=5)
    add("--threads", type=_count, default=os.cpu_count(), help="of torch, in every process")
    add("--tiny", action="store_true", help="of gpu: try it on the CPU, in about a minute")
    add("--parts", choices=PARTS, default=list(PARTS), **names, help=f"of gpu: {', '.join(PARTS)}")
    add("--folder", default="outputs/bench")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0.")
    return int(text)


def _about(options: argparse.Namespace) -> dict[str, Any]:
    """Return what figures depend on: machine, versions, commit and command."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    return {
        "command": f"python -m benchmarks {shlex.join(sys.argv[1:])}",
        "options": vars(options),
        "commit": git_commit(),
        "platform": platform.platform(),
        "processor": facts.get("model name", platform.processor()),
        "flags": [flag for flag in facts.get("flags", "").split() if flag[:3] in ("avx", "amx")],
        "python": platform.python_version(),
        "versions": {one.name: one.version for one in distributions() if one.name in TOLD},
    }


if __name__ == "__main__":
    main()
