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


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    words = [*demo(), "tracking=none", "report=none", "hydra.sweep.dir=sweep"]
    assert run_in(folder, *words, "trainer.progress_bar=false") == 0
    return folder / "sweep"


def test_everybody_gets_the_stored_counts(sweep):
    found, stored = counts(sweep), counts(STORED)
    jobs = found.index.droplevel(["target", "eps_255"])
    stored = stored[stored.index.droplevel(["target", "eps_255"]).isin(jobs)]
    assert len(jobs.unique()) == len(list(sweep.glob("*-*/"))) == 9
    assert found.index.equals(stored.index)
    apart = (found - stored).abs().max(axis=1)
    assert (apart <= NEAR).all(), found.join(stored, rsuffix="_stored")[apart > NEAR]


def test_no_alarm_stands_above_the_tables(sweep):
    assert "ALARM" not in (sweep / "summary.txt").read_text()


def test_a_small_network_learns_from_the_embedded_images(tmp_path, run_in, capsys):
    words = ["experiment=demo", "attack=none", "source=null", "targets=[resnet_small]"]
    words += ["model.resnet_small.weights=null", "dataset.n_train=2000", "training.epochs=2"]
    words += ["tracking=none", "report=none", "trainer.progress_bar=false", "n_images=50"]
    assert run_in(tmp_path, *words) == 0
    (percent,) = re.findall(r"Trained resnet_small: .* = ([\d.]+)%", capsys.readouterr().out)
    assert float(percent) > 20  # of ten classes
