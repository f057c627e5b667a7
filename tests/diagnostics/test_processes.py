"""Several processes give exactly the tables of one, also where one of them has no rows."""

import os
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.attacks import pgd
from src.config.settings import DiagnosticSettings, TrainerSettings
from src.data import Batch, ImageDataset, LabelledImages
from src.diagnostics import Bisection, make_diagnostics
from src.evaluation import (
    Attacker,
    DiagnosticInput,
    Transfer,
    Variants,
    evaluate,
    score_clean,
)
from src.experiment.prepared import Job
from src.experiment.unattacked import unattacked_tables
from src.utils.processes import from_first_process


def fake(index: list[int], flips: bool) -> DiagnosticInput:
    """A batch whose images all flip, or none is correct on the clean image."""
    count = len(index)
    clean = torch.zeros(count, 3, 8, 8)
    correct, wrong = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    return DiagnosticInput(
        clean=clean,
        adversarial=clean[None],
        batch=Batch(clean.byte(), torch.zeros(count, dtype=torch.int64), torch.tensor(index)),
        budgets=(8.0,),
        networks={"t": lambda images: correct.expand(len(images), 2)},
        logits={"t": (wrong if flips else correct).expand(1, count, 2)},
    )


DEALT = {
    "on both": [[fake([0, 1], True), fake([4], False)], [fake([3, 2], True)]],
    "on the second": [[fake([0, 1], False), fake([4], False)], [fake([3, 2], True)]],
    "on none": [[fake([0, 1], False)], [fake([3, 2], False)]],
}
"""The batches of two processes, by where there are rows of flips."""


def flips(batches: list[DiagnosticInput]) -> pa.Table:
    """Return the table of some batches, and of those of the other process if there is one."""
    flipping = [inputs for inputs in batches if inputs.logits["t"].argmax(-1).all()]
    counted = [number for inputs in flipping for number in inputs.batch.index.tolist()]
    zeros = np.zeros(len(counted), int)
    clean = {"index": zeros + counted, "label": zeros, "predicted": zeros}
    names = pa.array(["t"] * len(counted), pa.string())
    diagnostic = Bisection(
        ["t"], 2, pa.table(clean | {"target": names}), lambda images, batch, eps: images[None]
    )
    for inputs in batches:
        diagnostic.update(inputs)
    return diagnostic.compute()


def rank(number: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    for case, dealt in DEALT.items():
        pq.write_table(flips(dealt[number]), f"{folder}/{case}-{number}.parquet")
    dist.destroy_process_group()


def test_rows_on_one_process_on_both_and_on_none(tmp_path):
    mp.start_processes(rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for (case, dealt), rows in zip(DEALT.items(), (4, 2, 0), strict=True):
        one = flips([inputs for part in dealt for inputs in part])
        assert len(one) == rows
        assert all(pq.read_table(tmp_path / f"{case}-{n}.parquet").equals(one) for n in range(2))


def job(data: ImageDataset, batch_size: int, processes: int, folder: Path) -> dict[str, pa.Table]:
    """Evaluate two networks on random starts, controls and diagnostics, and keep the images."""
    networks = {name: network(seed) for seed, name in enumerate("ab")}
    settings = DiagnosticSettings(bisection=2, spectra=True, filters=True, similarity=True)
    words = {"accelerator": "cpu", "batch_size": batch_size, "progress_bar": False}
    words |= {"devices": processes, "strategy": "auto" if processes == 1 else "ddp"}
    trainer = TrainerSettings(**words)
    clean = score_clean(data, networks, trainer)
    attacker = Attacker(networks["a"], partial(pgd, steps=2), (2, 8), num_classes=3)
    module = Transfer(
        networks,
        attacker,
        Variants(controls=True),
        diagnostics=make_diagnostics(settings, list(networks), 8.0, clean, attacker.perturbed),
        diagnosed=DIAGNOSED,
        keep=partial(write, folder),
        kept_images=None,
    )
    result = evaluate(data, module, trainer, "test")
    words = {"diagnostics": settings, "trainer": trainer, "seed": 0, "reference": 8.0}
    words |= {"source_name": "a", "targets": ("a", "b"), "rerun": False, "cache_dir": str(folder)}
    models = {name: SimpleNamespace(classifier=one, key=name) for name, one in networks.items()}
    asked = Job(SimpleNamespace(**words), None, data, data, None, models, "cpu")
    kept = from_first_process(unattacked_tables(asked))
    return result.tables | {f"kept-{name}": table for name, table in kept.items()}


def write(folder: Path, parts: dict[str, pa.Table]) -> None:
    """Write each image to a file of its own."""
    rows = parts.get("images", pa.table({"index": [], "adversarial": []}))
    for index, image in zip(rows["index"], rows["adversarial"], strict=True):
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.image").write_bytes(image.values.to_numpy().tobytes())


DIAGNOSED = (0, 1, 3, 9)
"""Images of two of the three batches."""


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers = [torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)]
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def images() -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    clean = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return ImageDataset(LabelledImages(pixels, network(0)(clean).argmax(1).numpy(), "xyz"))


def as_torchrun(number: int, processes: int, port: int, folder: str) -> None:
    """Run the job as one of several processes that torchrun has started."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
    values = (number, number, processes, processes, 0, port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="x")
    torch.set_num_threads(1)
    for name, table in job(images(), BATCH_SIZE, processes, Path(folder) / "several").items():
        pq.write_table(table, f"{folder}/{name}-{number}.parquet")


BATCH_SIZE = 4  # of 11 images


def test_a_job_on_several_processes_gives_the_tables_and_images_of_one(tmp_path):
    processes = 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (processes, port, str(tmp_path))
    mp.start_processes(as_torchrun, args=arguments, nprocs=processes, start_method="fork")
    for name, one in job(images(), BATCH_SIZE, 1, tmp_path / "one").items():
        for number in range(processes):
            found = pq.read_table(tmp_path / f"{name}-{number}.parquet")
            assert found.equals(one), name
    one, found = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.image")}
        for name in ("one", "several")
    )
    assert found == one and len(one) == 11
