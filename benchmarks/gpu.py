"""Check and measure a machine with a GPU: `python -m benchmarks gpu`, in seven minutes."""

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import gpu_parts
from benchmarks.agreement import counted, differences
from benchmarks.gpu_parts import SIDES, Row, Setup
from src import load_sweep
from src.config import ignore_harmless_warnings
from src.utils.files import write_text
from src.utils.processes import keep_freed_memory

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "docs" / "results" / "demo"
"""The sweep of `make demo` as a CPU has computed it; `tests/test_golden.py` keeps it up to date."""
TESTS = ("tests/test_on_gpu.py", "tests/attacks/test_on_gpu.py")
BIG = """# @package model.random_{name}
network: {{_target_: torchvision.models.{name}, num_classes: 10}}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
weights: included # random ones
"""


def check(tiny: bool, parts: Sequence[str], results: Path, about: Mapping[str, Any]) -> int:
    """Run parts, print and store every row when it is measured; return the exit code.

    A part that fails or takes too long is noted, and the others go on.

    Args:
        tiny: Run everything small, on the CPU.
        parts: Names of `PARTS`, in the order in which they run.
        results: Folder of everything that is written: `gpu-DEVICE.json`, its table
            `gpu-DEVICE.md`, and the last output of tests and commands, `tests.log` and `last.log`.
        about: Machine, versions and command, which are stored too.
    """
    if not tiny and not torch.cuda.is_available():
        print("gpu: torch finds no GPU; --tiny tries the command on the CPU.", file=sys.stderr)
        return 2
    ignore_harmless_warnings()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    keep_freed_memory()
    hardware = "cpu" if tiny else torch.cuda.get_device_name()
    words = re.findall(r"[a-z0-9]+", hardware.lower())
    name = "-".join(word for word in words if word != "nvidia" and not word.startswith("hbm"))
    results.mkdir(parents=True, exist_ok=True)
    rows, failed, took = list[Row](), dict[str, str](), dict[str, float]()

    def store() -> None:
        facts = {"device": name, "hardware": hardware, "count": torch.cuda.device_count()}
        facts |= {"seconds": took, "failed": failed, "rows": [row._asdict() for row in rows]}
        write_text(results / f"gpu-{name}.json", json.dumps({**about, **facts}, indent=1))
        write_text(results / f"gpu-{name}.md", _table(rows))

    folder = TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True)
    setup = Setup(torch.device("cpu" if tiny else "cuda"), tiny, results, Path(folder.name))
    for part in parts:
        limit, measure = PARTS[part]
        print(f"{part}:", flush=True)
        start = time.perf_counter()
        try:
            for row in measure(setup):
                rows.append(row)
                took[part] = round(time.perf_counter() - start, 1)
                store()
                print(f"  {row.of}, {row.measured}, {row.side} pixels: {_cell([row])}", flush=True)
                if took[part] > limit and not tiny:
                    raise TimeoutError(f"stopped after {limit} s")
        except Exception as error:  # of any kind: the other parts go on
            failed[part] = f"{type(error).__name__}: {error}"
            print(f"  failed: {failed[part]}")
        took[part] = round(time.perf_counter() - start, 1)
        store()
        gc.collect()
        torch.cuda.empty_cache()
    folder.cleanup()
    print(f"files: {results}/gpu-{name}.json and .md; seconds: {took}")
    return 1 if failed else 0


def demo_counts(setup: Setup) -> Iterator[Row]:
    """Compare the demo's counts on this device with those that a CPU has stored."""
    sources = ["vgg_small", *([] if setup.tiny else ["resnet_small", "inception_small"])]
    words = ["experiment=demo", f"attack={'fgsm' if setup.tiny else 'fgsm,bim,mi'}"]
    stored = load_sweep(DEMO).predictions
    folder = setup.folder / "demo"
    words += [f"source={','.join(sources)}", f"hydra.sweep.dir='{folder}'"]
    yield Row("demo's command, s", ", ".join(sources), 32, _run_job(setup, "-m", *words))
    for name, jobs in load_sweep(folder).predictions.groupby("attack", sort=False):
        attack = str(name)
        cpu = stored[(stored["attack"] == attack) & stored["source"].isin(sources)]
        apart = differences(counted(jobs), counted(cpu))
        yield Row("demo, cells", attack, 32, apart["cells"])
        yield Row("demo, cells unlike the CPU's", attack, 32, apart["cells_differ"])
        yield Row("demo, most images unlike the CPU's in a cell", attack, 32, apart["largest"])
        yield Row("demo, predictions", attack, 32, apart["predictions"])
        yield Row("demo, predictions unlike the CPU's", attack, 32, apart["predictions_differ"])


def gpu_tests(setup: Setup) -> Iterator[Row]:
    """Run the tests that need a GPU."""
    words = ("-v", "-p", "no:cacheprovider", "-m", "gpu", *(TESTS[:1] if setup.tiny else TESTS))
    code, printed = _run(setup, "pytest", *words, log=setup.results / "tests.log")
    outcomes = re.findall(r"::(\S+) (PASSED|SKIPPED|FAILED|ERROR)", printed)
    if not outcomes:
        raise ValueError(f"pytest ended with {code}, without a test:\n{_end(printed)}")
    for outcome in ("PASSED", "SKIPPED", "FAILED", "ERROR"):
        yield Row("tests", outcome.lower(), 32, sum(found == outcome for _, found in outcomes))
    for test, outcome in outcomes:
        if outcome in ("FAILED", "ERROR"):
            yield Row("test", test, 32, outcome.lower())


def default_job(setup: Setup) -> Iterator[Row]:
    """Run jobs of large images with default batches, each in its own process."""
    models = ["resnet18"] if setup.tiny else ["densenet121", "resnet50"]
    side, images = (64, 4) if setup.tiny else (224, 1000)
    for name in models:
        write_text(setup.folder / "conf" / "model" / f"random_{name}.yaml", BIG.format(name=name))
        words = [f"--config-dir={setup.folder / 'conf'}", f"source=random_{name}"]
        words += [
            f"targets=[random_{name}]",
            "dataset=cifar10_mini",
            f"dataset.image_size={side}",
            f"n_images={images}",
        ]
        words += ["attack=bim", "attack.steps=3", "epsilon.grid=[8]"]
        words += ["clean_accuracy_check.action=warn"]
        seconds = _run_job(setup, *words, f"hydra.run.dir='{setup.folder / name}'")
        yield Row(f"default job, {images} images, s", f"bim of 3 steps, {name}", side, seconds)
        smaller = len(re.findall("(?i)out of memory", (setup.results / "last.log").read_text()))
        yield Row("lines about memory", f"bim of 3 steps, {name}", side, smaller)


def several_devices(setup: Setup) -> Iterator[Row]:
    """Compare the tables of a job on all devices with those of one; batches are the same."""
    count = 2 if setup.tiny else torch.cuda.device_count()
    images, size = (4, 2) if setup.tiny else (100 * count, 50)
    words = ["experiment=demo", "attack=bim", f"n_images={images}", "source=vgg_small"]
    words += [f"trainer.batch_size={size}", "targets=vgg_small"]
    tables = []
    for ddp in ([], ["trainer.strategy=ddp", f"trainer.devices={count}"]):
        folder = setup.folder / ("ddp" if ddp else "alone")
        seconds = _run_job(setup, *words, *ddp, f"hydra.run.dir='{folder}'")
        yield Row(f"whole command, {images} images, s", f"bim, {folder.name}", 32, seconds)
        tables.append(load_sweep(folder).predictions)
    one, other = tables
    unlike = int((one["predicted"] != other["predicted"]).sum())
    yield Row("rows unlike those of one device", f"bim, ddp on {count}", 32, unlike)
    largest = float((one["confidence"] - other["confidence"]).abs().max())
    yield Row("largest difference of a confidence", f"bim, ddp on {count}", 32, largest)


def _run_job(setup: Setup, *words: str) -> float:
    """Run the program and return the seconds of the whole command."""
    common = [f"trainer={setup.trainer}", "tracking=none", "report=none", "rerun=true"]
    common += [f"cache.dir='{setup.folder / 'cache'}'", "trainer.progress_bar=false"]
    start = time.perf_counter()
    code, printed = _run(setup, "src.main", *words, *common, log=setup.results / "last.log")
    if code:
        raise ValueError(f"the command ended with {code}:\n{_end(printed)}")
    return time.perf_counter() - start


def _run(setup: Setup, *words: str, log: Path) -> tuple[int, str]:
    """Run a module of Python for 100 seconds at most; return its code and what it prints."""
    with log.open("wb") as out:  # no pipe, which processes left behind would keep open
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
        code = -signal.SIGKILL
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(100)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, log.read_text(errors="replace")


def _end(printed: str) -> str:
    return "\n".join(printed.splitlines()[-15:])


def _table(rows: Sequence[Row]) -> str:
    """Return measurements as a Markdown table with a column for each size of images."""
    cells: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        cells.setdefault((row.measured, row.of), {}).setdefault(row.side, []).append(row)
    lines = [["measured", "of", *(f"{side} pixels" for side in SIDES)], ["---"] * (2 + len(SIDES))]
    lines += [[*key, *(_cell(by.get(side, ())) for side in SIDES)] for key, by in cells.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(rows: Sequence[Row]) -> str:
    """Return values as text, by batch where they have one: `16: 812; 64: 2,100`."""
    return "; ".join((f"{row.batch:,}: " if row.batch else "") + _text(row.value) for row in rows)


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


PARTS: dict[str, tuple[int, Callable[[Setup], Iterator[Row]]]] = {
    "counts": (70, demo_counts),
    "precisions": (40, gpu_parts.precisions),
    "attacks": (80, gpu_parts.attacks),
    "tests": (60, gpu_tests),
    "default job": (80, default_job),
    "several devices": (50, several_devices),
    "training": (30, gpu_parts.training),
}
"""Functions that yield measurements, and the seconds after which each is stopped."""
