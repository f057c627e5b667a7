"""Jobs that a Hydra launcher spreads over processes leave what they leave one after another."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pytest

from src.config.compose import compose_words
from tests.conftest import TINY_RUN, replaced, run_python, same_tables

LAUNCHERS = {
    "joblib": ["hydra/launcher=processes"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
    "ray": [
        "hydra/launcher=cluster",
        "hydra.launcher.ray.init.address=null",
        "+hydra.launcher.ray.init.num_cpus=2",
        "hydra.launcher.ray.remote.num_cpus=1",
        "hydra.launcher.ray.remote.num_gpus=0",
    ],
}
SWEEP = ["-m", "attack=fgsm,bim", "source=coarse,fine", "training=auto", "rerun=true"]


@pytest.mark.parametrize(
    ("gibibytes", "limit", "count"),
    [(64, "max\n", 4), (64, 7 * 2**30, 2), (7, "max", 2), (1, 2**62, 1)],
)
def test_processes_are_as_many_as_memory_allows(monkeypatch, tmp_path, gibibytes, limit, count):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    file = tmp_path / "memory.max"
    file.write_text(str(limit))
    sizes = {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": gibibytes * 2**18}
    monkeypatch.setattr("joblib.cpu_count", lambda **_: 4)
    monkeypatch.setattr("src.config.resolvers.MEMORY_LIMITS", (file, tmp_path / "none"))
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    config = compose_words(["hydra/launcher=processes", "trainer=cpu"])
    assert config.hydra.launcher.n_jobs == count


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launched_jobs_equal_those_of_one_process(workspace, run_job, empty_store, launcher):
    if find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
        pytest.skip(f"hydra-{launcher}-launcher is not installed")
    shutil.copytree(empty_store, workspace / "mlruns")
    assert run_job(*SWEEP, "hydra.sweep.dir=one") == 0
    words = [*SWEEP, *LAUNCHERS[launcher], "hydra.sweep.dir=many", "tracking=mlflow"]
    run_python("-m", "src.main", *replaced(TINY_RUN, *words), folder=workspace)
    jobs = sorted(Path("one").glob("*/predictions.parquet"))
    assert len(jobs) == 4
    for job in jobs:
        same_tables(job.parent, Path("many", job.parent.name), ["predictions"])
    assert Path("one/attacks.csv").read_text() == Path("many/attacks.csv").read_text()
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")
    found = store.search_runs([store.get_experiment_by_name("cifar10_mini").experiment_id])
    assert len(found) == 8 and {run.info.status for run in found} == {"FINISHED"}
