"""Two processes give exactly the table of one, also where one of them has no rows."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from src.diagnostics.diagnostic import DiagnosticInput

from src.data import Batch
from src.diagnostics import Bisection, Spectra


def fake(index: list[int], flips: bool) -> DiagnosticInput:
    """A batch whose images all flip, or none does."""
    count = len(index)
    seeds = [torch.Generator().manual_seed(number) for number in index]
    clean = torch.stack([torch.rand(3, 8, 8, generator=seed) for seed in seeds])
    made = (clean + 0.01 * torch.stack([torch.randn(3, 8, 8, generator=s) for s in seeds]))[None]
    right, wrong = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    return DiagnosticInput(
        clean=clean,
        made=made,
        batch=Batch(clean.byte(), torch.zeros(count, dtype=torch.int64), torch.tensor(index)),
        budgets=(8.0,),
        source=torch.nn.Identity(),
        networks={"t": lambda images: right.expand(len(images), 2)},
        logits={"t": (wrong if flips else right).expand(1, count, 2)},
        attack=lambda rows, eps: clean[rows],
    )


def gathered(
    rank: int, world: int, batches: list[list[DiagnosticInput]], store: str, answers
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
    for diagnostic in (Bisection(["t"], 2), Spectra(["t"], 8.0)):
        for seen in batches[rank]:
            diagnostic.update(seen)
        answers.put((rank, diagnostic.table, diagnostic.compute()))
    dist.barrier()
    dist.destroy_process_group()


def compared(batches: list[list[DiagnosticInput]], store) -> dict[str, int]:
    """Check that both processes have the table of one; return how many rows they have."""
    context = mp.get_context("fork")
    answers = context.Queue()
    arguments = [(rank, 2, batches, str(store), answers) for rank in range(2)]
    processes = [context.Process(target=gathered, args=words) for words in arguments]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = {}
    for kind in (Bisection(["t"], 2), Spectra(["t"], 8.0)):
        for seen in [seen for part in batches for seen in part]:
            kind.update(seen)
        one = kind.compute()
        tables = [table for _, name, table in found if name == kind.table]
        assert len(tables) == 2 and all(table.equals(one) for table in tables)
        rows[kind.table] = len(one)
    return rows


def test_rows_on_one_process_on_both_and_on_none(tmp_path):
    dealt = [[fake([0, 1], True), fake([4], False)], [fake([3, 2], True)]]
    assert compared(dealt, tmp_path / "both")["flips"] == 4
    dealt = [[fake([0, 1], False), fake([4], False)], [fake([3, 2], True)]]
    assert compared(dealt, tmp_path / "second")["flips"] == 2
    dealt = [[fake([0, 1], True)], [fake([3, 2], False)]]
    assert compared(dealt, tmp_path / "first")["flips"] == 2
    dealt = [[fake([0, 1], False)], [fake([3, 2], False)]]
    assert compared(dealt, tmp_path / "none")["flips"] == 0
