"""Two processes that share a job leave the files of one."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq

from src.evaluation import open_saved_images

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = [
    *("attack=pgd", "controls=true", "save_adversarial=true", "attack.target_label=random"),
    *("dataset.n_train=100", "training.epochs=1", "report=none", "attack.steps=3"),
]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
TABLES = ("predictions", "predictions-noise", "predictions-shuffled")


def on_two_processes(words: list[str], workspace: Path) -> subprocess.CompletedProcess[str]:
    words = [word for word in words if word != "trainer=cpu"]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "src.main", *words, *DDP],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )


def test_two_processes_equal_one(workspace, command_line, tiny_run):
    assert command_line(*JOB, "hydra.run.dir=one") == 0
    two = on_two_processes([*tiny_run, *JOB, "hydra.run.dir=two"], workspace)
    assert two.returncode == 0, two.stdout + two.stderr
    for name in TABLES:
        first, second = (
            pq.read_table(workspace / folder / f"{name}.parquet") for folder in ("one", "two")
        )
        assert second.equals(first)  # batches are laid out before they are dealt
        assert len(first) == 23 * 2 * 4
    sets = [open_saved_images(workspace / name / "adversarial") for name in ("one", "two")]
    assert sets[0].digest == sets[1].digest
    assert (workspace / "two" / "train_ddp_process_1.log").exists()  # there was a second process
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    for experiment, kinds in (("photos", 4), ("photos-sweeps", 4)):
        number = store.get_experiment_by_name(experiment).experiment_id
        assert len(store.search_runs([number])) == kinds  # no run was written twice
