"""Check and measure a machine with a GPU: `python -m benchmarks gpu`, at most 15 minutes."""

import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks import gpu_parts
from benchmarks.gpu_parts import SIDES, Row, Setup
from src.config.command_line import ignore_harmless_warnings
from src.run.speeds import TABLES
from src.utils.files import write_text
from src.utils.processes import keep_freed_memory

ROOT = Path(__file__).parents[1]


def check(tiny: bool, folder: Path, about: Mapping[str, Any]) -> int:
    """Run all parts, print and store what they measure; return the exit code.

    Args:
        tiny: Run everything small, on the CPU, and store it in `folder`.
        folder: Folder of everything else that is written.
        about: Machine, versions and command, which are stored too.
    """
    if not tiny and not torch.cuda.is_available():
        print("gpu: torch finds no GPU; --tiny tries the command on the CPU.", file=sys.stderr)
        return 2
    ignore_harmless_warnings()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    keep_freed_memory()
    results, tables = (folder, folder) if tiny else (ROOT / "docs/results/benchmarks", TABLES)
    hardware = "cpu" if tiny else torch.cuda.get_device_name()
    words = re.findall(r"[a-z0-9]+", hardware.lower())
    name = "-".join(word for word in words if word != "nvidia" and not word.startswith("hbm"))
    folder.mkdir(parents=True, exist_ok=True)
    setup = Setup(torch.device("cpu" if tiny else "cuda"), tiny, folder, tables / f"{name}.json")
    rows, failed, took = list[Row](), dict[str, str](), dict[str, float]()
    for part, (limit, measure) in PARTS.items():
        print(f"{part}:", flush=True)
        start = time.perf_counter()
        try:
            for row in measure(setup):
                rows.append(row)
                print(f"  {row.of}, {row.measured}, {row.side} pixels: {_cell([row])}", flush=True)
                if time.perf_counter() - start > limit:
                    raise TimeoutError(f"stopped after {limit} s")
        except Exception as error:  # of any kind: the other parts go on
            failed[part] = f"{type(error).__name__}: {error}"
            print(f"  failed: {failed[part]}")
        took[part] = round(time.perf_counter() - start, 1)
        gc.collect()
        torch.cuda.empty_cache()
    facts = {"device": name, "hardware": hardware, "count": torch.cuda.device_count()}
    facts |= {"seconds": took, "failed": failed, "rows": [row._asdict() for row in rows]}
    write_text(results / f"gpu-{name}.json", json.dumps({**about, **facts}, indent=1))
    write_text(results / f"gpu-{name}.md", text := _table(rows))
    print(text)
    print(f"files: {results}/gpu-{name}.json and .md; {setup.speeds} for plan_device={name}")
    return 1 if failed else 0


def tests(setup: Setup) -> Iterator[Row]:
    """Run the tests that need a GPU."""
    where = "tests/test_on_gpu.py" if setup.tiny else "tests"  # all take long to import
    words = ("-v", "-p", "no:cacheprovider", "-m", "gpu", where)
    for name, outcome in re.findall(r"::(\S+) (PASSED|SKIPPED)", _run(setup, "pytest", *words)):
        yield Row("test", name, 32, outcome.lower())


def several_devices(setup: Setup) -> Iterator[Row]:
    """Compare the tables of a job on all devices with those of one; batches are the same."""
    count = 2 if setup.tiny else torch.cuda.device_count()
    images, size = (4, 2) if setup.tiny else (100 * count, 50)
    words = ["experiment=demo", "attack=bim", f"n_images={images}", f"trainer={setup.trainer}"]
    words += [f"trainer.batch_size={size}", "tracking=none", "report=none", "rerun=true"]
    words += [f"cache_dir='{setup.folder / 'cache'}'", "targets=vgg_small"]
    found = []
    for ddp in ([], ["trainer.strategy=ddp", f"trainer.devices={count}"]):
        folder = setup.folder / ("ddp" if ddp else "alone")
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        _run(setup, "src.main", *words, *ddp, f"hydra.run.dir='{folder}'")
        found.append(pq.read_table(folder / "predictions.parquet"))
        seconds = time.perf_counter() - start
        yield Row(f"whole command, {images} images, s", f"bim, {folder.name}", 32, seconds)
    if not found[1].equals(found[0]):
        raise ValueError(f"the tables of {count} devices differ from those of one")
    yield Row("tables of one device", f"bim, ddp on {count}", 32, "equal")


def _run(setup: Setup, *words: str) -> str:
    """Run a module of Python for some minutes at most, and return what it prints."""
    log = setup.folder / "last.log"
    with log.open("wb") as out:  # no pipe, which processes left behind would keep open
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = process.wait(140)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    printed = log.read_text(errors="replace")
    if code:
        end = "\n".join(printed.splitlines()[-15:])
        raise ValueError(f"{' '.join(words)} ended with {code}:\n{end}")
    return printed


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
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


PARTS: dict[str, tuple[int, Callable[[Setup], Iterator[Row]]]] = {
    "tests": (140, tests),
    "several devices": (90, several_devices),
    "training": (90, gpu_parts.training),
    "speeds for plans": (150, gpu_parts.plan_speeds),
    "attacks": (210, gpu_parts.attacks),
    "torchattacks": (40, gpu_parts.torchattacks),
    "precisions": (150, gpu_parts.precisions),
}
"""Functions that yield measurements, and the seconds after which each is stopped."""
