"""Attacks that are fitted, from a command to tables, files and charts."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from src.artifacts.record import job_record
from src.attacks import CollectedWeights, UniversalPerturbation
from src.cache.rows import FOLDER
from tests.conftest import killed
from tests.test_distributed import started_by_torchrun

UAP = ["attack=uap", "attack.fit_n_images=60", "attack.fit_batch=20", "rerun=false"]
LGV = ["attack=lgv", "attack.fit_n_images=60", "attack.epochs=2", "attack.steps=3", "rerun=false"]
DATA = {"_target_": "src.data.cifar10_mini.cifar10_mini"}


def states():
    return {path.name: path.read_bytes() for path in Path("cache/fitted").glob("*.safetensors")}


def success(folder, eps=8.0):
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    return table[table["eps_255"] == eps].set_index(["target", "index"])["predicted"]


@pytest.mark.slow
def test_an_attack_is_fitted_once_for_each_budget_and_found_again(workspace, run_job, printed_by):
    assert "fitted first: uap " in printed_by(run_job, *UAP, "plan=only")[1]
    assert not Path("cache/fitted").exists()
    assert run_job(*UAP, "hydra.run.dir=one") == 0
    first = states()
    assert len(first) == 2
    record = job_record(Path("one"))
    assert record.fit_gradients == 2 * 3 * 60 and record.gradients == 0
    shutil.rmtree(Path("cache") / FOLDER)
    assert run_job(*UAP, "hydra.run.dir=two", "epsilon.grid=[0,0.5,4,8]") == 0
    assert len(states()) == 3 and first.items() <= states().items()
    assert success(Path("one")).equals(success(Path("two")))
    assert "fitted first" not in printed_by(run_job, *UAP, "plan=only")[1]
    assert run_job(*UAP, "source=fine", "hydra.run.dir=three") == 0
    assert len(states()) == 3 + 2


@pytest.mark.slow
def test_tables_show_the_gradients_of_fits_beside_those_of_attacks(workspace, run_job):
    words = ["-m", "attack=uap,bim,lgv", *UAP[1:2], "++attack.epochs=2", "hydra.sweep.dir=out"]
    words = [word.replace("attack.fit", "++attack.fit") for word in words]
    assert run_job(*words, "rerun=false", "source=coarse,[coarse,fine]") == 0
    table = pd.read_csv("out/attacks.csv")
    fits = table[table["source"] == "coarse"].groupby("attack")["fit_gradients"].first()
    assert {name.partition(" ")[0]: value for name, value in fits.items()} == {
        "uap": pytest.approx(2 * 2 * 60 / 23),
        "lgv": pytest.approx(2 * (60 + 4 * 60 / 3) / 23),
        "bim": 0,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "part"),
    [(UAP, UniversalPerturbation), (LGV, CollectedWeights)],
)
def test_a_killed_fit_goes_on_after_its_last_epoch(
    new_workspace, run_tiny, monkeypatch, words, part
):
    whole, broken = new_workspace(), new_workspace()
    assert run_tiny(whole, *words) == 0
    fit = part.fit

    def interrupted(self, task, state):
        for epoch, value in enumerate(fit(self, task, state)):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield value

    with monkeypatch.context() as patch:
        patch.setattr(part, "fit", interrupted)
        killed(lambda: run_tiny(broken, *words))
    assert [*broken.glob("cache/fitted/*.part")] and not [
        *broken.glob("cache/fitted/*.safetensors")
    ]
    assert run_tiny(broken, *words) == 0
    monkeypatch.chdir(whole)
    expected = states()
    monkeypatch.chdir(broken)
    assert states() == expected and not [*broken.glob("cache/fitted/*.part")]


@pytest.mark.parametrize("key", ["diagnostics.bisection=2", "diagnostics.iterations=[1,2]"])
def test_diagnostics_at_other_budgets_are_refused(run_job, key):
    assert run_job(*UAP, key) == 2


@pytest.mark.slow
def test_behind_a_defence_and_with_target_labels(workspace, run_job):
    defended = ["source_defence=random_resize_pad", "source_draws=2", "attack.target_label=next"]
    for words in (UAP, LGV):
        assert run_job(*words, *defended) == 0
    assert len(states()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("words", [UAP, LGV])
def test_two_processes_equal_one(workspace, tiny_run, run_job, words):
    many = [*words, "trainer.strategy=ddp", "trainer.devices=2", "hydra.run.dir=many"]
    started_by_torchrun(run_job, tiny_run, many, 2)
    fitted = states()
    shutil.rmtree("cache")
    assert run_job(*words, "hydra.run.dir=one") == 0
    assert fitted == states()
    assert np.array_equal(success(Path("many")), success(Path("one")))
