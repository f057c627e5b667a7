"""The end of a sweep whose jobs cannot be summed up, and the numbers that MLflow gets."""

import pytest

from src.artifacts.jobs import find_jobs
from src.report.summary import summarise
from src.run import sweep as sweeps
from src.run.track import sweep_points
from tests.conftest import REPOSITORY


class Closed:
    """A tracker that remembers how a sweep was closed."""

    def end_sweep(self, run, status, files, note, points):
        self.call = run, status, [path.name for path in files], note


def test_an_error_at_the_end_closes_the_run_and_keeps_the_files(tmp_path, monkeypatch, capsys):
    def out_of_memory(jobs):
        raise MemoryError("Unable to allocate 8 GiB")

    monkeypatch.setattr(sweeps, "summarise", out_of_memory)
    (tmp_path / "attacks.csv").write_text("attack\n")
    sweep = sweeps.Sweep([((), None)], lambda *_: None)
    sweep.folder, sweep.run, sweep.tracker = tmp_path, "run", Closed()
    with pytest.raises(SystemExit):
        sweep.end()
    run, status, files, note = sweep.tracker.call
    assert (run, status, files) == ("run", "FAILED", ["attacks.csv"]) and "8 GiB" in note
    assert "Unable to allocate 8 GiB" in capsys.readouterr().err
    assert (tmp_path / "attacks.csv").exists()


def test_mlflow_has_the_numbers_of_the_rankings():
    summary = summarise(find_jobs([REPOSITORY / "docs" / "results" / "demo"]))
    points = {(name, eps): value for name, value, eps in sweep_points(summary)}
    ranked = summary.rankings.query("source == 'mean of 3 sources'")
    assert set(ranked["eps_255"]) > {4.0} and ranked["eps_255"].iloc[0] == 4
    for row in ranked.to_dict("records"):
        place = int(row["eps_255"])
        assert points[f"transfer_success/{row['attack']}", place] == row["mean"]
        name = f"difference_from_first/{row['attack']}", place
        assert points.get(name, 0) == pytest.approx(0 if row["rank"] == 1 else row["difference"])
