"""Two processes that share a job give the table of one."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
from src.sets import read_set

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = ["dataset.n_train=100", "training.epochs=1", "report=none"]
JOB = ["attack=pgd", "controls=true", "save_adversarial=true", "attack.target_label=random"]
PROBES = {
    "flips": None,
    "spectra": 44,
    "filtered": 23 * 2 * 16,
    "low_passed": 230,
    "similarity": 46,
}
"""How many rows the tables have beside the predictions; None: as many as images flip."""
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def run(words: list[str], workspace: Path, folder: str, *arguments: str):
    words = [word for word in words if word != "trainer=cpu"]
    command = [sys.executable, "-W", "ignore", "-m", "src.main", *words, *arguments]
    return subprocess.run(
        [*command, f"hydra.run.dir={folder}", "diagnostics=full", *JOB, *QUICK],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("batch_size", [20, 50])  # of 23 images: a batch each, and one for both
def test_two_processes_equal_one(workspace, tiny_run, batch_size):
    words = [*tiny_run, f"trainer.batch_size={batch_size}"]
    one = run(words, workspace, "one", "trainer=cpu")
    assert one.returncode == 0, one.stderr
    two = run(words, workspace, "two", *DDP)
    assert two.returncode == 0, two.stdout + two.stderr
    for form in ("", "-noise", "-shuffled"):
        first, second = (
            pq.read_table(workspace / name / f"predictions{form}.parquet")
            for name in ("one", "two")
        )
        assert len(first) == 23 * 2 * 4
        assert second.equals(first)  # batches are laid out before they are dealt
    for name, rows in PROBES.items():
        first, second = (
            pq.read_table(workspace / folder / f"{name}.parquet") for folder in ("one", "two")
        )
        assert second.equals(first)
        assert len(first) > 0 and rows in (None, len(first))
    sets = [read_set(workspace / name / "adversarial") for name in ("one", "two")]
    assert sets[0].digest == sets[1].digest
    assert (workspace / "two" / "train_ddp_process_1.log").exists()  # there was a second process
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    for experiment, kinds in (("photos", 4), ("photos-sweeps", 4)):
        number = store.get_experiment_by_name(experiment).experiment_id
        assert len(store.search_runs([number])) == kinds  # no run was written twice
