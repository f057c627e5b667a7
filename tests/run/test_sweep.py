"""The jobs and the end of a sweep."""

import os
import time

import pytest

from src.artifacts import sweep_state as state
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.run import sweep as sweeps
from src.status import summary


class Published:
    """A tracker that remembers the published sweep."""

    def publish(self, kind, name, parameters, metrics, tags, files):
        self.call = kind, tags.get("error"), [path.name for path in files]


def test_an_error_at_the_end_is_published_and_keeps_the_files(tmp_path, monkeypatch, capsys):
    def out_of_memory(*words):
        raise MemoryError("Unable to allocate 8 GiB")

    monkeypatch.setattr(sweeps, "results_of", out_of_memory)
    (tmp_path / "attacks.csv").write_text("attack\n")
    config = compose_words(CONF, ["attack=fgsm", "experiment=demo"])
    sweep = sweeps.Sweep([read_job(config, config.hydra)], [()])
    sweep.folder, sweep.tracker = tmp_path, Published()
    with pytest.raises(SystemExit):
        sweep.summarise()
    kind, error, files = sweep.tracker.call
    assert (kind, files) == ("sweep", ["attacks.csv"]) and "8 GiB" in error
    assert "Unable to allocate 8 GiB" in capsys.readouterr().err
    assert (tmp_path / "attacks.csv").exists()


def write_job(folder, sweep, begun, ended):
    """Write a finished job of a sweep, whose files have these times."""
    (folder / ".hydra").mkdir(parents=True)
    config, predictions = folder / ".hydra" / "config.yaml", folder / "predictions.parquet"
    config.write_text(f"seed: 0\nsweep: {sweep}\nhydra: 1\n")
    os.utime(config, (0, begun))
    predictions.touch()
    os.utime(predictions, (0, ended))


@pytest.mark.parametrize("seconds", [-30, 0, 30])  # by which the file server's clock is off
def test_a_sweep_has_the_jobs_that_hold_its_id_whatever_their_times(tmp_path, seconds):
    manifest, now = state.SweepManifest(jobs=["mi", "bim"], single=False, id="12e5"), time.time()
    state.write_manifest(tmp_path, manifest)
    for number, sweep in enumerate(("'12e5'", "'12e5'", "12e55", "null")):
        write_job(tmp_path / f"{number}-job", sweep, now + seconds, now + 5 + seconds)
    assert list(state.job_folders(tmp_path, manifest)) == [0, 1]
    assert [job[2:4] for job in state.job_statuses(tmp_path)] == [
        ("done", pytest.approx(5, abs=1))
    ] * 2


def test_the_time_that_remains_is_by_the_work_of_the_jobs(tmp_path):
    manifest = state.SweepManifest(
        jobs=["fgsm", "bim", "mi"], single=False, id="1", work=[1, 30, 60]
    )
    state.write_manifest(tmp_path, manifest)
    after = time.time() + 4
    write_job(tmp_path / "0-fgsm", "'1'", after - 3600, after)
    state.start_clock(tmp_path / "0-fgsm")  # it trained for an hour
    assert "about 6 min remain" in summary(state.job_statuses(tmp_path))
