"""Jobs and the end of a sweep."""

import os
import time

import pytest

from src.artifacts import sweep_state as state


@pytest.mark.parametrize("seconds", [-30, 0, 30])  # by which the file server's clock is off
def test_a_sweep_has_the_jobs_that_hold_its_id_whatever_their_times(tmp_path, seconds):
    manifest, now = state.SweepManifest(jobs=["mi", "bim"], single=False, id="12e5"), time.time()
    state.write_manifest(tmp_path, manifest)
    for number, sweep in enumerate(("'12e5'", "'12e5'", "12e55", "null")):
        folder = tmp_path / f"{number}-job"
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(f"seed: 0\nsweep: {sweep}\nhydra: 1\n")
        (folder / "predictions.parquet").touch()
        for file, ended in ((".hydra/config.yaml", 0), ("predictions.parquet", 5)):
            os.utime(folder / file, (0, now + ended + seconds))
    assert list(state.job_folders(tmp_path, manifest)) == [0, 1]
    done = ("done", pytest.approx(5, abs=1))
    assert [job[2:4] for job in state.job_statuses(tmp_path)] == [done] * 2
