"""The sweep of `experiment=paper` on the command line, on tiny models."""

import pandas as pd
import pytest

from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import find_jobs
from tests.conftest import replaced

PAPER = ["-m", "experiment=paper", "base=bim", "source=coarse", "defences=none", "beside=null"]
PAPER += ["epsilon.grid=[4,8]", "epsilon.reference=8", "n_images=100", "hydra.sweep.dir=out"]


@pytest.fixture
def make_paper(run_tiny, workspace):
    """A function that runs a paper in a folder, and returns its exit code."""
    return lambda *words: run_tiny(workspace, *replaced(PAPER, *words))


def rates(job: FinishedJob) -> float:
    """Return the success on the target that is not the source at 8/255, by plain pandas."""
    rows = pd.read_parquet(job.folder / "predictions.parquet")
    aimed = rows["target_label"] >= 0
    rows["hit"] = (rows["predicted"] == rows["target_label"].where(aimed, rows["label"])) == aimed
    clean = rows[rows["eps_255"] == 0]
    right = clean[clean["predicted"] == clean["label"]].groupby("index")["target"].nunique() == 2
    attacked = rows[(rows["eps_255"] == 8) & (rows["target"] != job.record.source)]
    return attacked[attacked["index"].isin(right.index[right])]["hit"].mean()


@pytest.mark.parametrize("words", [["attack.norm=l2"], ["attack.target_label=next_image"]])
def test_the_base_has_the_norm_and_the_target_labels_of_the_attack(make_paper, workspace, words):
    assert make_paper("attack=ni", "attack.steps=2", *words) == 0
    found = find_jobs([workspace / "out"])
    jobs = {job.record.attack: job for job in found if job.record.config["question"] == "primary"}
    records = [jobs[name].record for name in ("ni", "bim")]
    assert records[0].norm == records[1].norm
    labels = [record.config["attack"]["target_label"] for record in records]
    assert labels[0] == labels[1] and records[1].gradients == records[0].gradients
    said = (workspace / "out" / "paper.md").read_text().partition("\n")[0]
    for name in ("ni", "bim"):
        assert f"{rates(jobs[name]):.1%}" in said
    assert ("reach the target class" in said) == (labels[0] is not None)
    assert "from coarse, at 8/255; 2 / 2 gradients per image" in said


def test_each_source_counts_once_and_its_trainings_are_those_of_the_folder(make_paper, workspace):
    models = workspace / "conf" / "model"
    text = (models / "coarse.yaml").read_text().replace("coarse\n", "coarse_seed1\n", 1)
    (models / "coarse_seed1.yaml").write_text(text)
    assert make_paper("attack=ni", "attack.steps=2", "source=coarse,fine") == 0
    first, *rest = (workspace / "out" / "paper.md").read_text().splitlines()
    jobs = [job for job in find_jobs([workspace / "out"]) if job.attack.startswith("ni")]
    hits = {(job.record.config["question"], job.record.source): rates(job) for job in jobs}
    mean, hit = (hits["primary", "coarse"] + hits["primary", "fine"]) / 2, hits["primary", "coarse"]
    assert f"{mean:.1%}" in first and "from coarse, fine, at 8/255" in first
    assert f"| {100 * hit:.1f} |" in next(row for row in rest if row.startswith("| from coarse_s"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["attack=mi", "base=bim,fgsm"], "sweep source alone"),
        (["attack=uap"], "is fitted"),
        (["attack=ni", "source=[coarse,fine],coarse"], "from one ensemble"),
        (["attack=ni", "targets=[coarse]"], "a target of another network"),
        (["attack=ni", "base=fgsm"], "base=fgsm: attack.gradients=10: fgsm has a fixed number"),
        (["attack=ni", "base=mii"], "base=mii: "),
        (["attack=bim"], "base=bim is the attack. Name another attack as base."),
    ],
)
def test_what_is_no_comparison_of_two_attacks_is_refused(make_paper, capsys, words, told):
    assert make_paper(*words) == 2
    assert told in capsys.readouterr().err


def test_a_base_of_equal_cost_runs_as_it_is(make_paper, workspace):
    assert make_paper("attack=fgsm", "base=rfgsm", "controls=false") == 0
    first, *rest = (workspace / "out" / "paper.md").read_text().splitlines()
    assert " rfgsm: " in first and "1 / 1 gradients per image" in first
    costs = [row.split(" | ")[-1] for row in rest if row.startswith("| at ")]
    assert costs == ["1 / 2 |"] * 2 and sum("costs are not equal" in row for row in rest) == 1
