"""Two processes give exactly the table of one, also where one of them has no rows."""

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.data import Batch
from src.diagnostics import Bisection, Spectra
from src.evaluation import DiagnosticInput


def fake(index: list[int], flips: bool) -> DiagnosticInput:
    """A batch whose images all flip, or none does."""
    count = len(index)
    seeds = [torch.Generator().manual_seed(number) for number in index]
    clean = torch.stack([torch.rand(3, 8, 8, generator=seed) for seed in seeds])
    adversarial = (clean + 0.01 * torch.stack([torch.randn(3, 8, 8, generator=s) for s in seeds]))[
        None
    ]
    correct, wrong = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    return DiagnosticInput(
        clean=clean,
        adversarial=adversarial,
        batch=Batch(clean.byte(), torch.zeros(count, dtype=torch.int64), torch.tensor(index)),
        budgets=(8.0,),
        source=torch.nn.Identity(),
        networks={"t": lambda images: correct.expand(len(images), 2)},
        logits={"t": (wrong if flips else correct).expand(1, count, 2)},
        attack=lambda rows, eps: clean[rows],
    )


DEALT = {
    "on both": [[fake([0, 1], True), fake([4], False)], [fake([3, 2], True)]],
    "on the second": [[fake([0, 1], False), fake([4], False)], [fake([3, 2], True)]],
    "on the first": [[fake([0, 1], True)], [fake([3, 2], False)]],
    "on none": [[fake([0, 1], False)], [fake([3, 2], False)]],
}
"""The batches of two processes, by where there are rows of flips."""


def tables(batches: list[DiagnosticInput]) -> dict[str, pa.Table]:
    """Return the tables of some batches, and of those of the other process if there is one."""
    found = {}
    for diagnostic in (Bisection(["t"], 2), Spectra(["t"], 8.0)):
        for inputs in batches:
            diagnostic.update(inputs)
        found[diagnostic.table] = diagnostic.compute()
    return found


def rank(number: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    for case, dealt in DEALT.items():
        for name, table in tables(dealt[number]).items():
            pq.write_table(table, f"{folder}/{case}-{name}-{number}.parquet")
    dist.destroy_process_group()


def test_rows_on_one_process_on_both_and_on_none(tmp_path):
    mp.start_processes(rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    rows = {}
    for case, dealt in DEALT.items():
        for name, one in tables([inputs for part in dealt for inputs in part]).items():
            for number in range(2):
                found = pq.read_table(tmp_path / f"{case}-{name}-{number}.parquet")
                assert found.equals(one)
            rows[case, name] = len(one)
    assert [rows[case, "flips"] for case in DEALT] == [4, 2, 2, 0]
