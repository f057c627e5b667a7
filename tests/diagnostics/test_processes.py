"""Several processes give exactly the tables of one, also where one of them has no rows."""

import os
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.multiprocessing as mp

from src.attacks import pgd
from src.config.settings import DiagnosticSettings, TrainerSettings
from src.data import ImageDataset, LabelledImages
from src.diagnostics import Similarity, low_passed_images, make_diagnostics, noise_parts
from src.evaluation import Attacker, Transfer, Variants, clean_images, evaluate, score_clean

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


def job(data: ImageDataset, processes: int, folder: Path) -> dict[str, pa.Table]:
    """Evaluate two networks on random starts, controls and diagnostics, and keep the images."""
    networks = {name: network(seed) for seed, name in enumerate("ab")}
    settings = DiagnosticSettings(bisection=2, spectra=True, filters=True)
    trainer = TrainerSettings(
        accelerator="cpu",
        batch_size=4,
        progress_bar=False,
        devices=processes,
        strategy="auto" if processes == 1 else "ddp",
    )
    clean = score_clean(data, networks, trainer)
    attacker = Attacker(networks["a"], partial(pgd, steps=2), (2, 8), num_classes=3)
    module = Transfer(
        networks,
        attacker,
        Variants(controls=True),
        make_diagnostics(settings, list(networks), 8.0, clean, attacker.perturbed),
        DIAGNOSED,
        partial(write, folder),
        kept_images=None,
    )
    tables = evaluate(data, module, trainer).tables
    compared = Similarity({"a b": ("a", "b")}, max_batch=4)
    pairs = Transfer(networks, clean_images(), Variants(wanted=()), [compared])
    for name, probe in {"noise": noise_parts(8.0, 0), "low": low_passed_images()}.items():
        rows = score_clean(data, networks, trainer, probe=probe, only=DIAGNOSED)
        tables[f"probe-{name}"] = rows
    return tables | evaluate(data, pairs, trainer, only=[3]).tables


def write(folder: Path, parts: dict[str, pa.Table]) -> None:
    """Write each image to a file of its own."""
    rows = parts.get("images", pa.table({"index": [], "adversarial": []}))
    for index, image in zip(rows["index"], rows["adversarial"], strict=True):
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.image").write_bytes(image.values.to_numpy().tobytes())


def as_torchrun(number: int, processes: int, port: int, folder: str) -> None:
    """Run the job as one of several processes that torchrun has started."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
    values = (number, number, processes, processes, 0, port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="x")
    torch.set_num_threads(1)
    for name, table in job(images(), processes, Path(folder) / "several").items():
        pq.write_table(table, f"{folder}/{name}-{number}.parquet")


def test_a_job_on_several_processes_gives_the_tables_and_images_of_one(tmp_path):
    processes = 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (processes, port, str(tmp_path))
    mp.start_processes(as_torchrun, args=arguments, nprocs=processes, start_method="fork")
    tables = job(images(), 1, tmp_path / "one")
    assert {"flips", "spectra", "filtered", "similarity"} < tables.keys()
    for name, one in tables.items():
        for number in range(processes):
            found = pq.read_table(tmp_path / f"{name}-{number}.parquet")
            assert found.equals(one), name
    one, found = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.image")}
        for name in ("one", "several")
    )
    assert found == one and len(one) == 11
