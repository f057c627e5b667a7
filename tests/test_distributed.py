"""Two processes that share a job give the tables of one."""

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq

from src.config.settings import SavedSettings
from src.evaluation import open_saved_images

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = ["attack=pgd", "attack.steps=3", "controls=true", "attack.target_label=random"]
KEPT = ["save_adversarial=true", "diagnostics=full", "diagnostics.bisection=2", "tracking=mlflow"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
DIAGNOSTICS = ["flips", "spectra", "filtered", "low_passed", "similarity"]


def test_two_processes_equal_one(workspace, tiny_run, empty_store, command_line):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = [*JOB, *KEPT, "trainer.batch_size=20"]  # of 23 images
    assert command_line(*words, "hydra.run.dir=one") == 0
    both = [*(word for word in tiny_run if not word.startswith("trainer=")), *words, *DDP]
    two = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "src.main", *both, "hydra.run.dir=two"],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert two.returncode == 0, two.stdout + two.stderr
    assert (workspace / "two" / "train_ddp_process_1.log").exists()  # there was a second process

    predictions = ["predictions", "predictions-noise", "predictions-shuffled"]
    for name in [*predictions, *DIAGNOSTICS]:
        first, second = (
            pq.read_table(workspace / folder / f"{name}.parquet") for folder in ("one", "two")
        )
        assert second.equals(first), name  # batches are laid out before they are dealt
        assert len(first) == 23 * 2 * 3 if name in predictions else len(first)
    sets = [
        open_saved_images(SavedSettings(path=str(workspace / name / "adversarial")))
        for name in ("one", "two")
    ]
    assert sets[0].digest == sets[1].digest
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    for experiment in ("photos", "photos-sweeps"):
        number = store.get_experiment_by_name(experiment).experiment_id
        assert len(store.search_runs([number])) == 4  # no run was written twice
