"""The sweep of `make demo`, which gives everybody the numbers of the README."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from src import load_sweep, rates
from tests.conftest import REPOSITORY, replaced

STORED = REPOSITORY / "docs" / "results" / "demo"
NEAR = 2
"""Images by which a count may differ where a processor rounds differently."""


def demo(*others: str) -> list[str]:
    """Return the words of `make demo`, or others of the same keys."""
    (words,) = re.findall(
        "-m src.main (.*experiment=demo.*)", (REPOSITORY / "Makefile").read_text()
    )
    return replaced(words.split(), *others)


def counts(folder: Path) -> pd.DataFrame:
    """Return still correct and counted images of every attack, source, target and budget."""
    jobs = load_sweep(folder).predictions.groupby(["attack", "source"])
    found = {key: rates(job, key[1], list(job["target"].unique())) for key, job in jobs}
    table = pd.concat(found, names=["attack", "source"]).reset_index()
    keys = ["attack", "source", "target", "eps_255"]
    return table.set_index(keys)[["still_correct", "denominator"]].sort_index()


@pytest.mark.slow
def test_everybody_gets_the_stored_counts(tmp_path: Path, run_in: Callable[..., int]) -> None:
    words = [*demo(), "tracking=none", "report=none", "hydra.sweep.dir=sweep"]
    assert run_in(tmp_path, *words, "trainer.progress_bar=false") == 0
    sweep = tmp_path / "sweep"
    assert "ALARM" not in (sweep / "summary.txt").read_text()
    found, stored = counts(sweep), counts(STORED)
    jobs = found.index.droplevel(["target", "eps_255"])
    stored = stored[stored.index.droplevel(["target", "eps_255"]).isin(jobs)]
    assert len(jobs.unique()) == len(list(sweep.glob("*-*/"))) == 9
    assert found.index.equals(stored.index)
    apart = (found - stored).abs().max(axis=1)
    assert (apart <= NEAR).all(), found.join(stored, rsuffix="_stored")[apart > NEAR]
