"""Compare the program's whole sweep with those of torchattacks, foolbox and ART."""

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
from benchmarks.bench import OURS, Bench
from benchmarks.compare import compare, speeds
from benchmarks.gpu import PARTS, check
from benchmarks.growth import growth
from benchmarks.inputs import INPUTS, Input
from benchmarks.large import large_costs
from benchmarks.peers import PEERS
from src.artifacts.record import git_commit
from src.utils.files import write_text

ATTACKS = ("fgsm", "bim", "pgd", "mi", "di", "ssa")
BUDGETS_255 = (1, 2, 4, 8, 12, 16)
TOLD = {"torch", "torchvision", "timm", "pytorch-lightning", "hydra-core", "mlflow", "numpy"}
TOLD |= {"transferability", "torchattacks", "foolbox", "adversarial-robustness-toolbox"}
"""Packages whose versions are noted."""


def main() -> None:
    """Run what the command line asks for; print tables and write `results.json`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = _parser()
    options = parser.parse_args()
    folder = Path(options.folder).absolute()
    if options.what == "gpu":
        sys.exit(check(options.tiny, options.parts, folder, _about(options)))
    variants = {name: words for name, *words in options.variant}
    if taken := {OURS, *PEERS} & variants.keys():
        parser.error(f"--variant {taken.pop()}: this is the name of a library; choose another.")
    shape = (options.threads, options.device, options.batch_size)
    bench = Bench(folder, options.images, *shape, variants, sorted(options.budgets))
    libraries = [OURS, *variants, *_installed(options.libraries)]
    about = _about(options)
    found = about | {"results": _done(folder / "results.json", about)}
    try:
        if options.what == "attacks" and options.pixels:
            for one in large_costs(options.pixels, {one["attack"] for one in found["results"]}):
                found["results"].append(one)
                write_text(folder / "results.json", json.dumps(found, indent=1))
        elif options.what == "attacks":
            found["results"] = [costs(options.rounds)]
            write_text(folder / "results.json", json.dumps(found, indent=1))
        for given in _inputs(options, folder):
            bench.prepare(given)
            words = " ".join(f'"{word}"' for word in bench.words(given))
            sources = f"attack=ATTACK source={','.join(given.models)}"
            print(f"{OURS}: python -m src.main -m {sources} {words}")
            print("and hydra.sweep.dir; clean predictions of earlier runs are removed before each")
            done = {one["attack"] for one in found["results"] if one["input"] == given.name}
            for one in _results(options, bench, given, libraries, done):
                found["results"].append(one)
                write_text(folder / "results.json", json.dumps(found, indent=1))
    except ValueError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if found["results"]:
        print(f"files: {folder / 'results.json'}")


def _results(
    options: argparse.Namespace, bench: Bench, given: Input, libraries: list[str], done: set[str]
) -> Iterator[dict[str, Any]]:
    if options.what == "growth":
        yield growth(bench, given)
        return
    if options.what == "speeds":
        yield speeds(options.images, given, bench.calls(given))
        return
    for attack in (name for name in options.attacks if name not in done):
        having = [one for one in libraries if one not in PEERS or attack in PEERS[one].attacks]
        yield compare(bench, given, attack, having, options.rounds)


def _done(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the comparisons that the same command, code and machine have left."""
    options = about["options"]
    if not (options["what"] == "compare" or options["pixels"]) or not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    done: list[dict[str, Any]] = found.pop("results")
    if done and found == json.loads(json.dumps(about)):
        print(f"{len(done)} results of {path} are left as they are")
        return done
    return []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    names: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    add = parser.add_argument
    kinds = ["compare", "growth", "speeds", "attacks", "gpu"]
    add("what", nargs="?", choices=kinds, default="compare")
    add("--inputs", choices=list(INPUTS), default=list(INPUTS), **names, help=", ".join(INPUTS))
    add("--own", nargs="+", metavar="WORD", help="your models, as a,b, and words of the program")
    add("--attacks", choices=ATTACKS, default=ATTACKS, **names, help=", ".join(ATTACKS))
    add(
        "--libraries",
        choices=PEERS,
        default=list(PEERS),
        **names,
        help=", ".join(PEERS),
    )
    add("--variant", action="append", default=[], nargs="+", metavar="WORD", help="NAME WORD ...")
    add("--images", type=_count, default=100)
    add("--budgets", type=_count, nargs="+", default=BUDGETS_255, help="in units of 1/255")
    add("--rounds", type=_count, default=5)
    add("--pixels", type=_count, help="of attacks: side of images, with large networks")
    add("--threads", type=_count, default=os.cpu_count(), help="of torch, in every process")
    add("--tiny", action="store_true", help="of gpu: try it on the CPU, in about a minute")
    add("--parts", choices=PARTS, default=list(PARTS), **names, help=f"of gpu: {', '.join(PARTS)}")
    add("--device", choices=["cpu", "gpu"], default="cpu")
    add("--batch-size", type=_count, default=50)
    add("--folder", default="outputs/bench")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0.")
    return int(text)


def _inputs(options: argparse.Namespace, folder: Path) -> list[Input]:
    """Return the inputs that are asked for and whose files are there."""
    if options.what == "attacks":  # has its own
        return []
    if options.own:
        models, *words = options.own
        return [Input("own", tuple(models.split(",")), tuple(words))]
    found = []
    for name in options.inputs:
        try:
            found.append(INPUTS[name](folder / name))
        except FileNotFoundError:
            print(f"{name} is left out: TRANSFER_DATA does not name a folder with its files.")
    return found


def _installed(libraries: list[str]) -> list[str]:
    missing = [name for name in libraries if find_spec(name) is None]
    for name in missing:
        print(f"{name} is left out: it is not installed; make setup installs it.")
    return [name for name in libraries if name not in missing]


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
