"""What a report says: its numbers against tables, its first sentence, alarms, and all sentences."""

import json
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest

from src import images_needed, rankings, table
from src.artifacts.jobs import find_jobs
from src.report.named_tables import matrices
from src.report.page.frame import build_report
from src.report.page.html import as_json
from src.report.results import results_of
from src.report.words import answer, ranking_notes
from tests.report.conftest import KINDS
from tests.report.frames import rows_of, value

HOLES = ("clean images", "missing values", "one image")
PLACE = {"attack": "fgsm", "defence": "none", "protocol": "joint", "eps_255": 8.0}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in HOLES else pytest.mark.slow) for kind in sorted(KINDS)],
)
def test_all_data_of_a_page_are_json_without_nan(made_up, kind):
    report = made_up(kind)
    assert json.loads(as_json(report.page)).keys() == report.page.keys()
    for name, block in report.blocks.items():
        if name.startswith("job-"):
            job = json.loads(zlib.decompress(block))
            size = len(job["models"]) * len(job["eps"]) * len(job["index"])
            assert len(job["predicted"]) == len(job["confidence"]) == size


def test_every_image_has_its_prediction(made_up, results_of_kind):
    report, job = made_up("defended"), results_of_kind("defended").attacked[0][0].job
    number = report.page["jobs"].index((job.attack, job.record.source))
    block = json.loads(zlib.decompress(report.blocks[f"job-{number}"]))
    shape = (len(block["models"]), len(block["eps"]), len(block["index"]))
    predicted, confidence = (np.reshape(block[name], shape) for name in ("predicted", "confidence"))
    for row in job.defended.sample(200, random_state=0).to_dict("records"):
        row |= {"models": [row["target"], row["defence"]], "eps": row["eps_255"]}
        at = tuple(block[name].index(row[name]) for name in ("models", "eps", "index"))
        code = predicted[at]
        assert (block["label"][at[2]] if code == 0 else code - 1) == row["predicted"]
        assert confidence[at] == round(100 * row["confidence"])


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"), budgets=(8.0,))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = build_report(results_of(find_jobs([folder])))
    assert report.page["first"]["view"] == "images" and report.page["first"]["target"] == "a"
    assert report.answer[0] in ("fgsm", "bim") and "fools a (white box) on" in report.answer[1]
    few, unknown = report.alarms
    assert few[0] == "few_images: a -> b: 3 images counted (joint)" and "rates of fewer" in few[1]
    assert unknown == ("of_a_later_version: something", "")


def test_table_page_and_terminal_show_the_main_storage_and_name_it(make_sweep, made_up):
    folder = make_sweep(models=("vgg", "vit"), full=True, storage="uint8", images=60)
    results = results_of(find_jobs([folder]))
    rates = results.frame.query("reference and source != 'mean' and target != 'mean'")
    rates = rates.set_index(["variant", "source", "target"])["success_rate"].unstack("variant")
    assert not rates["uint8"].equals(rates["float32"])
    cells = {row["source"]: row for row in rows_of(table(results, to="csv"))}
    page, caption = build_report(results).page, table(results, to="markdown")
    for (source, target), rate in rates["uint8"].items():
        assert float(cells[source][target]) == pytest.approx(rate)
        place = PLACE | {"source": source, "target": target}
        assert value(page, "fooled", **place) == pytest.approx(rate, abs=6e-5)
    headings = " ".join(grid.caption for forms in matrices(results).values() for grid in forms)
    assert all("as uint8" in text for text in (page["subtitle"], caption, headings))
    assert "as uint8" not in made_up("defended").page["subtitle"]


def test_a_job_that_two_sweeps_computed_has_the_tables_of_both(make_sweep, tmp_path):
    one, two = make_sweep(full=True), tmp_path / "two"
    shutil.copytree(one, two)
    for folder, name in ((one, "noise"), (two, "uint8")):
        for path in folder.glob(f"*/predictions-{name}.parquet"):
            path.unlink()
    alone, both = find_jobs([one]), find_jobs([one, two])
    assert [job.attack for job in both] == [job.attack for job in alone] == ["fgsm"] * 3
    assert {tuple(job.variants()) for job in alone} == {("float32", "uint8")}
    assert {tuple(job.variants()) for job in both} == {("float32", "uint8", "noise")}


def test_related_pairs_are_left_out_of_rankings_and_tables_on_demand(make_sweep):
    folder = make_sweep(alike=("vgg", "resnet"), budgets=(8.0,), images=60)
    for related, counts in ((True, [2, 2]), (False, [1, 2])):
        targets = rankings(folder, related=related).groupby("source")["targets"].max()
        assert targets[["vgg", "vit"]].tolist() == counts
    rows = rows_of(table(folder, to="csv", rows="source", related=False))
    assert [row["average"] == row["vit"] for row in rows] == [True, True, False]
    with pytest.raises(ValueError, match="True, or False"):
        rankings(folder, related="exclude")


def ranking(images: int, difference: float, undecided: bool = False, p: float = 0.01):
    """Return a ranking of two attacks, `a0` and `a1`."""
    rows = {"attack": ["a0", "a1"], "mean": [0.3, 0.3 + difference], "rank": [1, 2]}
    rows |= {"difference": [np.nan, difference], "p": [np.nan, p], "undecided": [True, undecided]}
    same = {"targeted": False, "source": "mean of 2 sources", "sources": 2, "eps_255": 8}
    same |= {"detectable": 0.07, "discordance": 0.1, "depends_on": "", "images": images}
    return pd.DataFrame(rows).assign(**same)


@pytest.mark.parametrize(
    ("ranked", "lead", "note"),
    [
        (ranking(150, -0.1), "a0 transfers best", "decided: "),
        (ranking(150, -0.1, True, 0.2), "a0 leads, undecided,", "= not significantly "),
        (
            ranking(150, 0.0, True, 1.0),
            "a0 and 1 more are equal",
            "= not significantly ",
        ),
        (ranking(50, -0.1), "50 images are too few", "50 images are too few"),
        (ranking(20, -0.1, True, np.nan), "20 images are too few", "not tested: "),
    ],
)
def test_answer_and_notes_agree_on_what_the_tests_decide(ranked, lead, note):
    said_first, rest, details = answer(ranked, "attack", " at 8/255", ["counted: all images"])
    notes = ranking_notes(ranked, "attack", 5)
    assert said_first.startswith(lead) and notes[0].startswith(note)
    assert details.startswith("Counted: all images. ") and rest.startswith(" at 8/255")
    assert ("10.0 points ahead of a1" in rest) == lead.startswith(("a0 trans", "a0 leads"))
    assert (": a1 (" in details or ": a1." in details) == ("undecided" in lead or "equal" in lead)
    takes = f"takes about {max(100, images_needed(0.1, 0.1, 2))} images"
    for text in (" ".join(notes), details):
        assert (takes in text) == ("too few" in lead)
    assert "differences of 7.0 points" in " ".join(notes)
