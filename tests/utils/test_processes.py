"""What launchers leave in the environment means nothing where no processes share a job."""

import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src import transfer

LEFT = {"RANK": 1, "LOCAL_RANK": 1, "NODE_RANK": 1, "GROUP_RANK": 1, "WORLD_SIZE": 4}
LEFT |= {"SLURM_PROCID": 1, "SLURM_NTASKS": 4, "SLURM_JOB_NAME": "x", "TORCHELASTIC_RUN_ID": "x"}


@pytest.fixture(autouse=True)
def leftovers(monkeypatch):
    for name, value in LEFT.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # read when Lightning was imported


@pytest.mark.slow
def test_a_plain_command_trains_and_writes_all_files(run_job, workspace):
    words = ["model.coarse.weights=null", "dataset.n_train=40", "training.epochs=1"]
    assert run_job(*words, "hydra.run.dir=out", "diagnostics=full") == 0
    assert {"predictions.parquet", "spectra.parquet"} <= {
        path.name for path in (workspace / "out").iterdir()
    }


def test_a_call_from_python_returns_all_rows():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    images, labels = torch.rand(12, 3, 8, 8), torch.arange(12) % 4
    images = (255 * images).to(torch.uint8)
    frame = transfer({"a": network}, {"a": network}, images, labels, progress_bar=False)
    assert len(frame.predictions) == 12 * 2
