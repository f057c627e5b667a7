"""What a report says: its numbers against tables, its first sentence, alarms, and all sentences."""

import io
import json
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from src import images_needed, rankings, table
from src.analysis.quantities import QUANTITIES
from src.artifacts.jobs import find_jobs
from src.artifacts.record import read_record, with_record
from src.report.named_tables import matrices
from src.report.page.frame import RANKING_KEYS, SOURCE_KEYS, build_report, key_of
from src.report.page.html import as_json
from src.report.page.images import MOST_BYTES
from src.report.results import results_of
from src.report.shown import shown_of
from src.report.source_choice import choose_source
from src.report.terminal import print_rankings
from src.report.words import answer, ranking_notes, said, sentences
from tests.report.conftest import KINDS
from tests.report.conftest import make_sweep as write_sweep
from tests.report.frames import rows_of, value

HOLES = ("clean images", "missing values", "one image")
PLACE = {"attack": "fgsm", "defence": "none", "protocol": "joint", "eps_255": 8.0}


def report_of(folder):
    return build_report(results_of(find_jobs([folder])))


@pytest.fixture(scope="module")
def page(made_up):
    return made_up("defended").page


@pytest.mark.parametrize(
    ("short", "quantity", "eps", "protocol"),
    [
        ("fooled", "success", 2.0, "joint"),
        ("correct", "accuracy", 8.0, "all"),
        ("confidence", "confidence", 8.0, "joint"),
    ],
)
def test_cells_and_means_are_those_of_the_table(
    page, results_of_kind, short, quantity, eps, protocol
):
    for defence, rows in (("none", ["source", "attack"]), ("jpeg", ["attack"])):
        words = {"value": quantity, "eps_255": eps, "protocol": protocol, "defence": defence}
        for row in rows_of(table(results_of_kind("defended"), rows=rows, to="csv", **words)):
            for target in ("vgg", "resnet", "vit", "mixer", "average"):
                place = {"attack": row["attack"], "source": row.get("source", "")}
                place |= {"target": target if target != "average" else "", "eps_255": eps}
                place |= {"defence": defence, "protocol": protocol}
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


@pytest.mark.parametrize("images", [20, 60, pytest.param(150, marks=pytest.mark.slow)])
def test_page_and_terminal_compare_sources_alike_on_each_target(tmp_path, images):
    """Three networks that attack each other are ranked on single targets alone."""
    small = {"attacks": ("bim",), "budgets": (8.0,), "full": False}
    results = results_of(find_jobs([write_sweep(tmp_path, images=images, **small)]))
    console = Console(file=io.StringIO(), width=300)
    print_rankings(results, console)
    page, text = build_report(results).page, console.file.getvalue()
    for target in ("vgg", "resnet", "vit"):
        place = PLACE | {"attack": "bim", "target": target}
        ranked = page["sources"][key_of(page["axes"], place, SOURCE_KEYS)]
        assert ranked["text"].startswith(f"on {target}") and ranked["text"] in text
        assert ("not tested" in ranked["text"]) == (images < 30)
        for row in ranked["rows"]:
            assert f"{row['name']} {row['text']}%" in ranked["text"]


def test_a_quantity_that_is_drawn_can_be_chosen(results_of_kind, monkeypatch):
    results = results_of_kind("one source")
    entry = replace(QUANTITIES["true_confidence"], drawn="in the true class")
    monkeypatch.setitem(QUANTITIES, "true_confidence", entry)
    page = build_report(results).page
    assert [*page["shown"]] == ["fooled", "correct", "class"]
    place = PLACE | {"attack": "bim", "source": "vgg", "target": "vit"}
    (share,) = results.select(**place)["true_confidence"]
    assert value(page, "class", **place) == pytest.approx(share, abs=6e-5)
    assert value(page, "class.text", **place) == f"{100 * share:.1f}"


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
        model, eps = [row["target"], row["defence"]], row["eps_255"]
        at = (
            block["models"].index(model),
            block["eps"].index(eps),
            block["index"].index(row["index"]),
        )
        code = predicted[at]
        assert (block["label"][at[2]] if code == 0 else code - 1) == row["predicted"]
        assert confidence[at] == round(100 * row["confidence"])


def test_the_answer_names_the_first_and_what_it_is_ahead_of(made_up, results_of_kind):
    lead, rest, details = made_up("defended").answer
    rows = results_of_kind("defended").rankings
    rows = rows.query("eps_255 == 8 and defence == 'none' and sources > 1")
    first, second = rows.iloc[0], rows.iloc[1]
    assert lead.startswith(first["attack"])
    assert ("transfers best" in lead) == (not second["undecided"])
    assert "at 8/255" in rest and second["attack"] in rest
    assert f"{abs(100 * second['difference']):.1f} point" in rest
    assert f"the {first['images']} of 130 images" in details and "p < 0.05" in details
    report, rows = made_up("one source"), results_of_kind("one source").rankings
    best = rows[rows["eps_255"] == 8].sort_values("rank").iloc[0]
    assert report.page["first"]["view"] == "results" and best["attack"] in report.answer[0]


def test_a_single_model_fools_itself_and_alarms_stand_once_with_their_causes(make_sweep):
    folder = make_sweep(models=("a",), attacks=("fgsm", "bim"), budgets=(8.0,))
    listed = [
        {"name": "few_images", "finding": "a -> b: 3 images counted (joint)"},
        {"name": "of_a_later_version", "finding": "something"},
    ]
    for number in range(2):
        (folder / f"{number}-job" / "alarms.json").write_text(json.dumps(listed))
    report = report_of(folder)
    assert report.page["first"]["view"] == "images" and report.page["first"]["target"] == "a"
    assert report.answer[0] in ("fgsm", "bim") and "fools a (white box) on" in report.answer[1]
    few, unknown = report.alarms
    assert few[0] == "few_images: a -> b: 3 images counted (joint)" and "rates of fewer" in few[1]
    assert unknown == ("of_a_later_version: something", "")


def test_a_source_without_adversarial_images_of_its_own_has_no_row(made_up):
    blocks = made_up("sources that are no targets").blocks
    jobs = [json.loads(zlib.decompress(its)) for name, its in blocks.items() if "job" in name]
    assert {job["source"] for job in jobs} == {"a", "b"}
    for job in jobs:
        assert {name for name, _ in job["models"]} == {"vgg", "resnet", "vit", "mixer"}
        assert None not in job["predicted"]


def test_table_page_and_terminal_show_the_main_storage_and_name_it(make_sweep, made_up):
    folder = make_sweep(full=True, budgets=(8.0,), storage="uint8", images=60)
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


def test_sources_are_ranked_and_chosen_without_ensembles_and_with_unknown_weights(
    make_sweep, tmp_path
):
    names = ("a", "b", "c", "d", "e")
    folder = make_sweep(models=names, sources=("a", "b", "c", "a+b"), budgets=(8.0,))
    found = choose_source([folder])
    assert set(found.ranking["source"]) == {"a", "b", "c"}  # ensembles are ranked apart
    rows = found.choices.set_index("target")
    assert rows["candidates"].dropna().to_dict() == {"a": 2, "b": 2, "c": 3, "d": 4, "e": 4}
    assert rows.loc["e", "any"] < rows.loc["e", "best_2"]
    ranking = shown_of(results_of(find_jobs([folder]))).ranking.query("of == 'mean of sources'")
    assert [*ranking["heading"]] == ["untargeted", "untargeted of ensembles"]
    targets = ("vgg", "resnet", "vit", "mixer")
    few = {"attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    models = {"models": ("a", "b", *targets), "sources": ("a", "b"), "targets": targets}
    saved = write_sweep(tmp_path / "saved", **models, **few)
    for file in saved.rglob("*.parquet"):
        name, record = read_record(file)
        rows = pq.read_table(file)
        weights = {target: record.weights[target] for target in targets}
        record = record.model_copy(update={"weights": weights, "protocol": "target_correct"})
        rows = rows.filter(pc.is_in(rows["target"], pa.array(targets)))
        pq.write_table(with_record(rows, name, record), file)
    assert set(choose_source([saved]).ranking["source"]) == {"a", "b"}


@pytest.mark.slow
def test_related_pairs_are_named_and_left_out_of_rankings_and_tables_on_demand(make_sweep):
    folder = make_sweep(alike=("vgg", "resnet"), budgets=(8.0,))
    rates = results_of(find_jobs([folder])).rows[0][0].rates
    assert set(rates["target"][rates["overlap"] == "same weights"]) == {"vgg", "resnet"}
    for related, counts in ((True, [2, 2]), (False, [1, 2])):
        targets = rankings(folder, related=related).groupby("source")["targets"].max()
        assert targets[["vgg", "vit"]].tolist() == counts
    words = {"rows": "source", "related": False}
    cells = pd.read_csv(io.StringIO(table(folder, to="csv", **words)), index_col=0)
    assert (cells["average"] == cells["vit"]).loc[["vgg", "resnet"]].all()
    assert "without related pairs" in table(folder, to="markdown", **words)
    with pytest.raises(ValueError, match="True, or False"):
        rankings(folder, related="exclude")


@pytest.mark.slow
def test_pictures_and_predictions_stop_where_the_page_is_full_and_the_jobs_are_named(
    make_sweep, monkeypatch
):
    folder = make_sweep(full=True, budgets=(8.0,))
    whole = report_of(folder).page
    assert len(whole["jobs"]) == 3 and not whole["left_out"]
    monkeypatch.setitem(MOST_BYTES, "pictures", -1)
    monkeypatch.setitem(MOST_BYTES, "job", 1)
    cut = report_of(folder)
    assert len(cut.page["jobs"]) == 1 and zlib.decompress(cut.blocks["pictures-0"]) == b""
    lacking = cut.page["left_out"]
    assert len(lacking) == 2 and all(str(folder) in command for *_, command in lacking)


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
