"""The jobs and the end of a sweep, and the numbers that MLflow gets."""

import os
import time

import pytest

from src import load_sweep
from src.artifacts.sweep_state import (
    CONFIG_OF_JOB,
    JobStatus,
    SweepManifest,
    job_folders,
    job_statuses,
    start_clock,
    write_manifest,
)
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.run import sweep as sweeps
from src.run.track import publish_sweep
from src.status import cache_of, summary
from tests.conftest import REPOSITORY


class Published:
    """A tracker that remembers the published sweep."""

    def publish(self, kind, name, parameters, metrics, tags, files):
        self.call = kind, tags.get("error"), [path.name for path in files], tags.get("note")


@pytest.fixture(scope="module")
def job():
    config = compose_words(CONF, ["attack=fgsm", "experiment=demo"])
    return read_job(config, config.hydra)


@pytest.mark.parametrize(("name", "many"), [("demo", False), ("kinds", True)])
def test_a_sweep_of_more_than_a_hundred_pairs_names_its_page(tmp_path, job, name, many):
    results, tracker = load_sweep(REPOSITORY / "docs" / "results" / name), Published()
    (tmp_path / "report.html").touch()
    publish_sweep(tracker, "id", [job], results, tmp_path, "", "the matrix", "")
    note = tracker.call[3]
    assert note.endswith("the matrix") and (f"{tmp_path.as_uri()}/report.html" in note) == many


def test_an_error_at_the_end_is_published_and_keeps_the_files(tmp_path, job, monkeypatch, capsys):
    def out_of_memory(*words):
        raise MemoryError("Unable to allocate 8 GiB")

    monkeypatch.setattr(sweeps, "results_of", out_of_memory)
    (tmp_path / "attacks.csv").write_text("attack\n")
    sweep = sweeps.Sweep([job], [()])
    sweep.folder, sweep.tracker = tmp_path, Published()
    with pytest.raises(SystemExit):
        sweep.summarise()
    kind, error, files, _ = sweep.tracker.call
    assert (kind, files) == ("sweep", ["attacks.csv"]) and "8 GiB" in error
    assert "Unable to allocate 8 GiB" in capsys.readouterr().err
    assert (tmp_path / "attacks.csv").exists()


@pytest.mark.parametrize("seconds", [-30, 0, 30])  # by which the file server's clock is off
def test_a_sweep_has_the_jobs_that_hold_its_id_whatever_their_times(tmp_path, seconds):
    manifest = SweepManifest(jobs=["mi", "bim"], single=False, id="12e5")
    write_manifest(tmp_path, manifest)
    for number, sweep in enumerate(("'12e5'", "'12e5'", "12e55", "null")):
        hydra = tmp_path / f"{number}-job" / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "config.yaml").write_text(f"seed: 0\nsweep: {sweep}\nhydra: 1\n")
        (tmp_path / f"{number}-job" / "predictions.parquet").touch()
        for path in (hydra / "config.yaml", tmp_path / f"{number}-job" / "predictions.parquet"):
            os.utime(path, (0, time.time() + seconds + 5 * (path.suffix == ".parquet")))
    assert list(job_folders(tmp_path, manifest)) == [0, 1]
    assert [job[2:4] for job in job_statuses(tmp_path)] == [("done", pytest.approx(5, abs=1))] * 2


def test_the_time_that_remains_is_by_the_work_of_the_jobs(tmp_path):
    manifest = SweepManifest(jobs=["fgsm", "bim", "mi"], single=False, id="1", work=[1, 30, 60])
    write_manifest(tmp_path, manifest)
    hydra = tmp_path / "0-fgsm" / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text("sweep: '1'\n")
    os.utime(hydra / "config.yaml", (0, time.time() - 3600))  # an hour of training
    start_clock(tmp_path / "0-fgsm")
    (tmp_path / "0-fgsm" / "predictions.parquet").touch()
    after = time.time() + 4
    os.utime(tmp_path / "0-fgsm" / "predictions.parquet", (0, after))
    assert "about 6 min remain" in summary(job_statuses(tmp_path))


@pytest.mark.parametrize(
    "text", ["cache_dir: {}\nstore: {{total_gb: 7}}", "cache: {{dir: {}, total_gb: 7}}"]
)
def test_the_status_shows_the_cache_of_this_version_and_of_earlier_ones(tmp_path, text):
    file = tmp_path / CONFIG_OF_JOB
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.format(tmp_path / "cache"))
    job = JobStatus(name="a", state="done", folder=tmp_path, error="", seconds=1, work=1)
    assert cache_of([job]).startswith(f"{tmp_path / 'cache'}: 0.0 of 7 GB")
