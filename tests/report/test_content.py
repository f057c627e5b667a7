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
from src.report.page.frame import RANKING_KEYS, SOURCE_KEYS, build_report, key_of
from src.report.page.html import as_json
from src.report.results import results_of
from src.report.words import answer, ranking_notes, said, sentences
from tests.report.conftest import FOUR, KINDS
from tests.report.frames import rows_of, value

HOLES = ("clean images", "missing values", "one image")
PLACE = {"attack": "fgsm", "defence": "none", "protocol": "joint", "eps_255": 8.0}


@pytest.fixture(scope="module")
def page(made_up):
    return made_up("defended").page


def test_cells_and_means_are_those_of_the_table(page, results_of_kind):
    results = results_of_kind("defended")
    for short, quantity, eps, protocol, defence, rows in (
        ("fooled", "success", 2.0, "joint", "none", ["source", "attack"]),
        ("correct", "accuracy", 8.0, "all", "jpeg", ["attack"]),
        ("confidence", "confidence", 8.0, "joint", "jpeg", ["source", "attack"]),
    ):
        place = {"eps_255": eps, "protocol": protocol, "defence": defence}
        for row in rows_of(table(results, rows=rows, value=quantity, to="csv", **place)):
            place |= {"attack": row["attack"], "source": row.get("source", "")}
            for target in (*FOUR, "average"):
                place["target"] = target if target != "average" else ""
                number = float(row[target])
                assert value(page, short, **place) == pytest.approx(number, abs=6e-5), place
                assert value(page, f"{short}.text", **place) == f"{100 * number:.1f}", place


@pytest.mark.parametrize(("of", "keys"), [("attack", RANKING_KEYS), ("source", SOURCE_KEYS)])
def test_rankings_are_those_of_rankings(page, results_of_kind, of, keys):
    ranked, checked = rankings(results_of_kind("defended"), of=of), 0
    if of == "attack":
        ranked["source"] = ranked["source"].mask(ranked["sources"] > 1, "")
        shown = page["rankings"]
    else:
        ranked["target"] = ranked["target"].mask(ranked["target"] == "all targets", "")
        ranked = ranked[ranked["attack"].isin(page["axes"]["attack"])]  # no mean over attacks
        shown = page["sources"]
    for place, rows in ranked.groupby([*keys], sort=False):
        names = dict(zip(keys, place, strict=True))
        its = [one for one in shown[key_of(page["axes"], names, keys)]["rows"] if one.get("name")]
        rows = rows[rows["rank"].notna()]
        assert [one["name"] for one in its] == rows[of].tolist()
        for one, (_, row) in zip(its, rows.iterrows(), strict=True):
            assert one["value"] == pytest.approx(row["mean"], abs=6e-5)
            assert one["text"] == f"{100 * row['mean']:.1f}"
            if row["rank"] > 1:
                assert one["behind"] == f"{-100 * row['difference']:z.1f}"
                assert one["rank"].startswith("= ") == row["undecided"]
            checked += 1
    assert checked


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


GROUP = {"targeted": False, "source": "mean of 2 sources", "sources": 2, "eps_255": 8}


def ranking(images: int, *differences: float, undecided: int = 0, p: float = 0.01, **more):
    """Return a ranking of attacks `a0`, `a1`, ..., of which the first others are undecided."""
    count = len(differences) + 1
    numbers = {"difference": [np.nan, *differences], "p": [np.nan, *[p] * len(differences)]}
    numbers |= {"mean": [0.3, *(0.3 + its for its in differences)], "rank": range(1, count + 1)}
    numbers |= {"undecided": [at <= undecided for at in range(count)], "images": images}
    columns = {"detectable": 0.07, "discordance": 0.1, "depends_on": "", **GROUP, **more}
    return pd.DataFrame({"attack": [f"a{at}" for at in range(count)], **numbers}).assign(**columns)


@pytest.mark.parametrize(
    ("ranked", "lead", "note"),
    [
        (ranking(150, -0.1), "a0 transfers best", "decided: "),
        (ranking(150, -0.1, undecided=1, p=0.2), "a0 leads, undecided,", "= not significantly "),
        (ranking(150, 0.0, undecided=1, p=1.0), "a0 and 1 more are equal", "= not significantly "),
        (ranking(50, -0.1), "50 images are too few", "50 images are too few"),
        (ranking(20, -0.1, undecided=1, p=np.nan), "20 images are too few", "not tested: "),
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


def test_what_a_lead_depends_on_and_rows_that_are_not_shown_or_not_ranked_are_named():
    ranked = ranking(150, -0.01, -0.02, -0.03, depends_on="x, y")
    lead, rest, details = answer(ranked, "attack", "", [])
    assert lead == "a0 leads on average" and rest == ": 1.0 point ahead of the next, a1"
    assert "without target x or without y," in details.lower() and "ecided" not in details
    lacking = pd.DataFrame({"attack": ["a9"], "lacks": "vgg -> vit", "undecided": True})
    notes = ranking_notes(pd.concat([ranking(150, -0.1, -0.2), lacking]), "attack", 2)
    assert notes[0].startswith("attacks.csv has 1 more; decided: ")
    assert notes[-1] == "not ranked: a9, which lacks vgg -> vit"
    assert sentences(said(("one", True), ("two", 0), ("", True))) == ["One."]
