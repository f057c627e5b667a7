"""Whole sweeps of the program beside those of torchattacks, each in a fresh process."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import fx, nn
from torchvision import transforms

from benchmarks.agreement import CELL, counted, differences
from src import load_classifier, load_sweep
from src.artifacts import find_jobs
from src.data import load_dataset
from src.utils.files import write_text

MODELS = ("vgg_small", "resnet_small", "inception_small")
"""Those of `make demo`: each is a source and a target."""
LIBRARIES = ("ours", "torchattacks")


class Plan(NamedTuple):
    """What both sweeps are of; budgets are ascending, in units of 1/255 and without 0."""

    folder: Path
    images: int
    budgets: tuple[int, ...]
    batch: int
    threads: int


def compare(plan: Plan, attack: str, rounds: int) -> dict[str, Any]:
    """Run, print and return one comparison; the first sweep of ours says which images it has."""
    sweeps, runs, found = dict(zip(LIBRARIES, (_ours, _theirs), strict=True)), [], {}
    for number in range(rounds):
        for library in LIBRARIES[:: -1 if number % 2 else 1]:
            (seconds, megabytes), loop, found[library] = sweeps[library](plan, attack)
            measured = {"seconds": seconds, "loop": loop, "megabytes": megabytes}
            runs.append({"library": library, "round": number, **measured})
    table = times(pd.DataFrame(runs))
    agreement = differences(*(counted(found[library]) for library in LIBRARIES))
    print(f"{attack}, medians of {rounds} rounds:\n{table.round(2).to_string()}\n{agreement}\n")
    rows = table.reset_index().to_dict("records")
    return {"attack": attack, "runs": runs, "times": rows, "agreement": agreement}


def times(runs: pd.DataFrame) -> pd.DataFrame:
    """Return each library's medians over the rounds.

    They are `seconds`, `loop` (crafting and classifying), `megabytes` (peak of the memory); and
    `ratio`, `least` and `largest`, of the whole process over ours in the same round.
    """
    found = runs.groupby("library")[["seconds", "loop", "megabytes"]].median()
    whole = runs.pivot(index="round", columns="library", values="seconds")
    ratios = whole.div(whole[LIBRARIES[0]], axis=0)
    return found.assign(ratio=ratios.median(), least=ratios.min(), largest=ratios.max())


def _ours(plan: Plan, attack: str) -> tuple[tuple[float, float], float, pd.DataFrame]:
    """Return seconds and megabytes of our process, seconds of its loop, and its predictions."""
    folder = plan.folder / attack / LIBRARIES[0]
    shutil.rmtree(folder, ignore_errors=True)  # with its cache: the other library has none
    words = ["-m", "experiment=demo", "epsilon.reference=null", f"attack={attack}", "report=none"]
    words += [f"source={','.join(MODELS)}", f"targets=[{','.join(MODELS)}]"]
    words += [f"n_images={plan.images}", f"trainer.batch_size={plan.batch}"]
    words += [f"epsilon.grid=[0,{','.join(map(str, plan.budgets))}]"]
    words += [f"cache.dir='{folder}/cache'", f"tracking.directory='{plan.folder}/mlruns'"]
    measured = _child(plan, "src.main", *words, f"hydra.sweep.dir='{folder}/sweep'")
    loop = sum(job.record.seconds or math.nan for job in find_jobs([folder / "sweep"]))
    return measured, loop, load_sweep(folder / "sweep").predictions


def _theirs(plan: Plan, attack: str) -> tuple[tuple[float, float], float, pd.DataFrame]:
    """Return the same of torchattacks, on the images of our sweep."""
    ours = load_sweep(plan.folder / attack / LIBRARIES[0] / "sweep")
    labels = ours.predictions.groupby("index")["label"].first()
    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    networks = [_documented(name) for name in MODELS]
    data, result = plan.folder / "data.pt", plan.folder / attack / "predictions.npz"
    batch = images[labels.index.to_numpy()]
    torch.save({"images": batch.images, "labels": batch.labels, "networks": networks}, data)
    spec = {**plan._asdict(), "attack": attack, "data": data, "result": result}
    write_text(plan.folder / "spec.json", json.dumps(spec, default=str))
    measured = _child(plan, "benchmarks.theirs", str(plan.folder / "spec.json"))
    budgets = [0.0, *map(float, plan.budgets)]
    index = pd.MultiIndex.from_product(
        [MODELS, MODELS, budgets, labels.index], names=[*CELL, "index"]
    )
    with np.load(result) as found:
        rows = pd.DataFrame({"predicted": found["predicted"].ravel()}, index).reset_index()
        return measured, float(found["seconds"]), rows.assign(label=rows["index"].map(labels))


def _documented(name: str) -> nn.Sequential:
    """Return a network as torchattacks' documentation builds one, with no code of the program."""
    classifier = load_classifier(name, "dataset=cifar10_mini", "trainer.fold_batch_norms=false")
    mean, std = (values.flatten().tolist() for values in (classifier.mean, classifier.std))
    network = fx.symbolic_trace(classifier.network)  # unpickled without the classes of its blocks
    return nn.Sequential(transforms.Normalize(mean, std), network).eval().requires_grad_(True)


def _child(plan: Plan, *words: str) -> tuple[float, float]:
    """Run a module of Python; return its seconds and the peak of its memory in megabytes."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    log = plan.folder / "last.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(plan.threads)}
    start = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=out, stderr=out, env=environment
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # an interrupt ends what it waits for
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ValueError(f"{' '.join(words)} ended with {process.returncode}:\n{end}")
    return seconds, usage.ru_maxrss / 1024
