"""Jobs and the end of a sweep."""

import os
import time

import pytest

from src.artifacts import sweep_state as state
from src.artifacts.jobs import find_jobs
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.measure.attack_cost import most_pictures
from src.run import sweep as sweeps
from tests.conftest import own_attack


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


COUNTING = """
from src.attacks import fgsm
def counting(model, images, labels, eps, *, seeds, max_batch=None):
    with open("attacked.txt", "a") as file:
        file.write("x" * len(images))
    return fgsm(model, images, labels, eps, max_batch=max_batch)
counting.all_budgets = True
"""


def test_few_images_are_attacked_again_for_pictures(run_job, workspace, monkeypatch, capsys):
    monkeypatch.setattr("src.report.finished_jobs.write_report", lambda *_: None)
    own_attack(workspace, "counting", "_target_: counting_code.counting", COUNTING)
    words = ["attack=counting", "report=default", "cache.images_mb=0", "cache.dir=none"]
    assert run_job(*words, "report.examples=3", "hydra.run.dir=out") == 0
    (job,) = find_jobs([workspace / "out"])
    assert len((workspace / "attacked.txt").read_text()) == 23 + 23 // 20
    assert len(job.pictures) == 3 + 1
    assert most_pictures(32, 2) == 10_000_000 // (3 * 32 * 32 * 3) and most_pictures(9999, 1) == 1
    assert run_job(*words, "report.images=[99999]", "hydra.run.dir=refused") == 2
    assert "report.images: image 99999 is not one of the job's" in capsys.readouterr().err
    assert not (workspace / "refused").exists()
