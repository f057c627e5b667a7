"""What a report says: its numbers, first sentence and alarms, and what it compares."""

import json
import zlib
from itertools import product

import numpy as np
import pandas as pd
import pytest

from src import analysis, images_needed, load_sweep, rankings, table, tries
from src.artifacts.jobs import find_jobs
from src.report import figure as charts
from src.report.page.frame import build_report
from src.report.page.html import as_json
from src.report.results import results_of
from src.report.words import answer, margins_sentence, ranking_notes, standing
from tests.records import JOBS, results_of_frame
from tests.report import frames
from tests.report.conftest import make_sweep as write_sweep
from tests.report.frames import frame_of, rows_of


@pytest.mark.parametrize("kind", ["clean images", "missing values", "one image", "audit"])
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
    assert "as uint8" in page["subtitle"]
    assert "/255 uint8|" in caption and "/255 uint8|" in results.signature
    assert "as uint8" not in made_up("defended").page["subtitle"]


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
        (ranking(150, 0.0, True, 1.0), "a0 and 1 more are equal", "= not significantly "),
        (ranking(50, -0.1), "50 images are too few", "50 images are too few"),
        (ranking(50, -0.1, True, 0.2), "50 images are too few", "= not significantly "),
        (ranking(20, -0.1, True, np.nan), "20 images are too few", "not tested: "),
    ],
)
def test_answer_and_notes_agree_on_what_the_tests_decide(ranked, lead, note):
    said_first, rest, details = answer(ranked, "attack", " at 8/255", ["counted: all images"])
    notes = ranking_notes(ranked, "attack", 5)
    assert said_first.startswith(lead) and notes[0].startswith(note)
    assert details.startswith("Counted: all images. ") and rest.startswith(" at 8/255")
    assert ("10.0 points ahead of a1" in rest) == lead.startswith(("a0 trans", "a0 leads"))
    tied = bool(ranked["undecided"].iloc[1] and ranked["p"].notna().any())
    assert (": a1 (" in details or ": a1." in details) == tied
    takes = f"takes about {max(100, images_needed(0.1, 0.1, 2))} images"
    few, undecided = "too few" in lead, ranked["undecided"].iloc[1]
    for text in (" ".join(notes), details):
        assert (takes in text) == (few and undecided)
        assert ("floor of 100 images is fixed, not a power" in text) == few
    assert "differences of 7.0 points" in " ".join(notes)


def sweep_of(monkeypatch, images: int, **counts: tuple[int, ...]):
    """Return results of attacks that fool so many of 20 images of the targets x, y and z."""
    monkeypatch.setattr(frames, "IMAGES", images)
    fooled = {
        (attack, "net", target): count
        for attack, its in counts.items()
        for target, count in zip(("net", *"xyz"), (20, *its), strict=True)
    }
    return results_of_frame(frame_of(fooled))


def texts_of(results) -> list[str]:
    """Return what table, ranking and page say of the first attack."""
    report, grid = build_report(results), table(results, name="ranking")
    ranked = rankings(results).query("eps_255 == 8")
    tables = [table(results, rows="attack", to=form) for form in ("markdown", "latex", "html")]
    shown = [" ".join(report.answer), json.dumps(report.page["rankings"])]
    return [*tables, grid.markdown(), standing(ranked), *shown]


def test_a_lead_that_needs_one_target_is_an_average_in_every_output(monkeypatch):
    one = {"mi": (20, 10, 10), "di": (4, 10, 10)}
    for text in texts_of(sweep_of(monkeypatch, 200, **one)):
        assert "ithout target x, the lead is not significant" in text and "n average" in text
    for text in texts_of(sweep_of(monkeypatch, 200, mi=(20, 20, 20), di=(4, 4, 4))):
        assert "n average" not in text and "the lead" not in text
    (outcomes,) = sweep_of(monkeypatch, 200, **one).outcomes(8.0).values()
    row = analysis.rankings(outcomes, against="di").to_dict("records")[0]
    row |= {"what": "", "than": "di", "other": 0.4, "costs": (1, 1), "of": "200 images", "text": ""}
    said = margins_sentence([row | {"p": 0.01, "undecided": False}], "mi", "")
    assert "mi is better on average than di" in said and "without target x, the lead" in said


def test_below_100_images_no_output_names_a_winner(monkeypatch):
    *tables, ranked, stands, answered, notes = texts_of(
        sweep_of(monkeypatch, 60, mi=(20, 20, 20), di=(4, 4, 4))
    )
    assert all("images bold names no winner (fixed floor)" in text for text in tables)
    few = "60 images are too few to name a winner"
    assert stands == few and answered.startswith(few)
    for text in (ranked, answered, notes):
        assert "floor of 100 images is fixed, not a power" in text and "ahead" not in text
    row = ranking(60, -0.1).to_dict("records")[0] | {"p": 0.01, "undecided": False}
    row |= {"what": "", "than": "di", "other": 0.4, "costs": (1, 1), "of": "60 images", "text": ""}
    said = margins_sentence([row], "mi", "")
    assert said.startswith("mi is beside di: ") and f"{few}: the floor" in said


def test_equal_outcomes_are_called_so(monkeypatch):
    results = sweep_of(monkeypatch, 200, mi=(20, 10, 10), di=(20, 10, 10))
    *_, ranked, stands, answered, notes = texts_of(results)
    assert stands == "di and 1 more have equal outcomes" and answered.startswith(stands)
    assert all("he same outcome on every image as the first: mi" in x for x in (ranked, notes))
    row = rankings(results).query("eps_255 == 8").to_dict("records")[1]
    row |= {"what": "", "than": "di", "other": 0.4, "costs": (1, 1), "of": "200 images", "text": ""}
    assert "mi has the same outcome on every image as di: " in margins_sentence([row], "mi", "")


UNEVEN = {
    **{("fgsm", "vgg", "net"): 12, ("fgsm", "vit", "net"): 6},
    **{("mi", "vgg", target): 10 for target in ("net", "other", "third")},
}
"""A ranking's pairs are those of `mi` alone, which has one source."""


def test_no_figure_draws_a_mean_that_no_ranking_compares_and_all_say_so(caplog):
    frame = frame_of({("fgsm", *pair): 6 for pair in product(("vgg", "vit"), ("net", "other"))})
    frame["variant"] = frame["variant"].mask(frame["source"] == "vit", "uint8")
    for job in frame.attrs[JOBS]:
        job["storage"] = "uint8" if job["source"] == "vit" else "float32"
    apart = results_of_frame(frame)
    assert {*apart.frame["attack"]} == {"fgsm (float32)", "fgsm (uint8)"}
    uneven = results_of_frame(frame_of(UNEVEN))
    for results, left, named in (
        (apart, "fgsm (", {"source": ["vgg", "vit"], "attack": [*{*apart.frame["attack"]}]}),
        (uneven, "fgsm (another ranking, or none)", {"attack": ["mi"]}),
    ):
        for draw in (charts.curves, charts.ranking, charts.cost):
            caplog.clear()
            spec = draw(results, height="3in").to_json()
            assert f"Not drawn: {left}" in caplog.text
            assert results is uneven or "mean of sources" not in spec
        caplog.clear()
        charts.curves(results, height="3in", **named)
        assert not caplog.text


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a small sweep of FGSM and BIM into a folder and returns its path."""
    small = {"models": ("vgg", "vit"), "images": 60, "full": False, "budgets": (8.0,)}
    return lambda name, **words: write_sweep(tmp_path / name, **{**small, **words})


def test_sweeps_and_swept_words_tell_jobs_apart(sweep):
    one, two = sweep("one"), sweep("two", attacks=("fgsm",), budgets=(4.0, 8.0))
    names = {"fgsm (one)", "bim (one)", "fgsm (two)"}  # of all its attacks, or of none
    assert set(load_sweep(one, two)["attack"]) == names
    assert set(load_sweep(a=one, b=two)["attack"]) == {"fgsm (a)", "bim (a)", "fgsm (b)"}
    with pytest.raises(ValueError, match=r"different jobs named fgsm .*vgg"):
        load_sweep(sweep("x/out"), sweep("y/out", budgets=(4.0, 8.0)))


def test_seeds_are_one_row_of_means_whose_intervals_are_over_images(sweep):
    seeds = [sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(3)]
    words = {"rows": "attack", "to": "csv", "intervals": True}
    alone = [rows_of(table(one, **words))[0] for one in seeds]
    (row,) = rows_of(table(*seeds, **words))
    for name in ("vit", "average"):
        each = [float(its[name]) for its in alone]
        assert [float(row[f"{name} seed={seed}"]) for seed in range(3)] == pytest.approx(each)
        expected = np.mean(each), np.std(each, ddof=1)
        assert (float(row[name]), float(row[f"{name} sd"])) == pytest.approx(expected)
    widths = [float(its["vit high"]) - float(its["vit low"]) for its in (row, *alone)]
    assert np.mean(widths[1:]) / np.sqrt(3) < widths[0] < np.mean(widths[1:])
    ranked, single = rankings(*seeds), [rankings(folder) for folder in seeds]
    assert set(ranked["attack"]) == {"fgsm"} and set(ranked["images"]) == {*single[0]["images"]}
    assert ranked["mean"].to_numpy() == pytest.approx(np.mean([its["mean"] for its in single], 0))


def test_candidates_have_their_first_seed_and_are_untargeted_if_any_is(sweep):
    first, second = (sweep(f"{seed}", seed=seed, attacks=("fgsm",)) for seed in range(2))
    bim, aimed = sweep("bim", attacks=("bim",)), sweep("aimed", attacks=("mi",), aimed=True)
    found = tries(first, second, bim)
    pd.testing.assert_frame_equal(found, tries(first, bim, aimed))
    assert (found["candidates"] == 4).all() and set(found["attack"]) <= {"fgsm", "bim"}
    assert set(tries(aimed)["attack"]) == {"mi"}


def test_each_sweep_on_a_page_has_the_numbers_of_its_own_page(made_up, results_of_kind):
    kind, shared = "incomparable sweeps", {"colours", "charts", "letter", "name", "about"}
    report = made_up(kind)
    assert [its.page["name"] for its in report.sweeps.values()] == ["one", "two"]
    for its in report.sweeps.values():
        jobs = [job for job in results_of_kind(kind).jobs if its.page["name"] in job.sweeps]
        alone = build_report(results_of(find_jobs([jobs[0].sweep_folder])))
        assert not alone.sweeps and alone.answer == its.answer and alone.blocks == its.blocks
        for name in alone.page.keys() - shared:
            assert as_json(alone.page[name]) == as_json(its.page[name]), name
    one, two = (its.page["colours"] for its in report.sweeps.values())
    assert one == two and {*one} == {"fgsm", "bim", "mi"}
    assert "A and B cannot be compared" in "".join(report.answer[:2])
    facts = {label: texts for label, *texts in report.differs.cells}
    assert facts["images"] == ["60", "45, of which 45 are in A"]
    assert facts["budgets, /255"] == ["2, 8", "8, 16"] and "norm" not in facts
    assert report.page["answers"]["B"] == report.sweeps["B"].answer
