"""An attack beside the stored attacks of a preset, and `rank`, which runs it on their images."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import findings.baselines
import src.config.fields
from findings.baselines import pack_preset
from src import attacks, rank, rankings
from src.artifacts.card import CardJob, write_card
from src.artifacts.jobs import find_jobs
from src.report.beside import beside, read_preset
from src.report.page.frame import build_report
from src.report.results import results_of
from tests.records import frame_of_sweep, results_of_frame
from tests.report.conftest import make_sweep

MODELS = ("vgg", "resnet", "vit")
NAMES = ("weak", "mi", "bim", "pgd", "dim")
SWEEP: dict[str, Any] = {
    **{"models": MODELS, "budgets": (4.0,), "full": False, "images": 300},
    "attacks": tuple(f"{name}_own" for name in NAMES),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep, beside the preset `made-up` of it, with 60 images for tuning."""
    place = tmp_path_factory.mktemp("presets")
    folder = make_sweep(place / "sweep", **SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(src.config.fields, "PRESETS", place)
        patch.setattr(findings.baselines, "PRESETS", place)
        pack_preset("made-up", [folder], 60)
    return folder


@pytest.fixture
def sweep(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sweep whose preset `made-up` can be named. Tests only read it."""
    monkeypatch.setattr(src.config.fields, "PRESETS", stored.parent)
    return stored


@pytest.fixture
def named(sweep):
    """A function that returns the jobs of the sweep that ran an attack, from some sources."""

    def jobs(name, sources=MODELS):
        found = [job for job in find_jobs([sweep]) if job.record.attack == f"{name}_own"]
        return [job for source in sources for job in found if job.record.source == source]

    return jobs


@pytest.fixture
def changed(tmp_path):
    """A function that returns jobs, packed in a card, whose rows and records were changed."""

    def change(jobs, rows_of=lambda rows: rows, name="mine", **facts):
        cards = []
        for number, job in enumerate(jobs):
            table = job.as_card().tables["predictions"]
            rows = rows_of(table.to_pandas())
            table = pa.Table.from_pandas(rows, table.schema, preserve_index=False)
            counts = {"images": rows["index"].nunique(), "key": f"{name}{number}"}
            record = job.record.model_copy(update=counts | facts)
            cards.append(CardJob(record, (name, number), (), {"predictions": table}))
        write_card(cards, tmp_path / f"{name}.parquet")
        return find_jobs([tmp_path / f"{name}.parquet"])

    return change


def test_a_stored_attack_run_as_mine_differs_from_itself_by_nothing(named):
    (result,) = beside(named("mi"), "made-up")
    table = result.own_settings.set_index("attack")
    row, mine = table.loc["mi"], table.loc["mi_own"]
    assert row["difference"] == 0 and row["undecided"] and row["p"] == 1
    assert mine["mean"] == row["mean"] and len(table) == len(NAMES) + 1
    assert "cannot be told apart from: mi" in str(result)


@pytest.mark.slow
def test_means_are_those_of_one_sweep_that_ran_all(named, sweep):
    (result,) = beside(named("dim"), "made-up")
    whole, tuning = frame_of_sweep(sweep), read_preset("made-up")[0]["tuning"]
    for column, of_tuning in {"mean_tuned": True, "mean": False}.items():
        rows = results_of_frame(whole[whole["index"].isin(tuning) == of_tuning])
        expected = rankings(rows).query("source == 'mean of 3 sources'").set_index("attack")["mean"]
        got = result.own_settings.set_index("attack")[column]
        for name in NAMES:
            assert got[name] == pytest.approx(expected[f"{name}_own"], abs=1e-12)


UNFIT = [
    ({"weights": {"vgg": "other"}}, "source vgg has another digest of weights"),
    ({"source": "vgg@jpeg"}, "source vgg@jpeg is not stored"),
    ({"norm": "l2"}, r"norm \(l2, linf\)"),
    ({"storage": "uint8"}, r"storage \(uint8, float32\)"),
    ({"budgets": (0.0, 8.0), "reference": 8.0}, "budgets 8/255; stored is 4/255"),
]


def test_what_does_not_fit_is_named_and_not_compared(named, changed):
    (job,) = named("mi", ["vgg"])
    for facts, reason in UNFIT:
        if "weights" in facts:
            facts = {"weights": job.record.weights | facts["weights"]}
        unfit = replace(job, record=job.record.model_copy(update=facts))
        unfit.__dict__["predictions"] = job.predictions
        with pytest.raises(ValueError, match=reason):
            beside([unfit], "made-up")
    other = changed(named("bim", ["vgg"]), norm="l2", label="<b>")
    ranks = beside([*other, job], "made-up")
    assert [result.attack for result in ranks] == ["mi_own"]
    assert "<b>: Not compared: " in ranks.notes[0] and str(ranks).endswith(ranks.notes[0])
    with pytest.raises(ValueError, match=r"^against=mii: .*\bbim, dim, mi, pgd, weak\.$"):
        beside([job], "made-up", ["mi", "mii"])


def test_targets_that_are_not_shared_are_left_out_of_all_means(named, changed):
    jobs = named("mi", ["vgg"])
    weights = jobs[0].record.weights | {"vit": "other"}
    (result,) = beside(changed(jobs, weights=weights), "made-up")
    assert "target vit has another digest of weights" in str(result)
    rows = result.own_settings.set_index("attack")
    assert (rows["targets"].dropna() == 1).all() and rows.loc["mi", "difference"] == 0


def test_other_images_are_never_compared(named, changed):
    jobs = named("mi", ["vgg"])

    def of_new_images(rows: pd.DataFrame, first: int) -> pd.DataFrame:
        new = "new" + rows["index"].astype(str)
        return rows.assign(image=rows["image"].where(rows["index"] < first, new))

    with pytest.raises(ValueError, match="300 of 300 images are not stored"):
        beside(changed(jobs, partial(of_new_images, first=0)), "made-up")
    mine = changed([*jobs, *named("bim")], partial(of_new_images, first=100))
    ranks = beside(mine, "made-up")
    assert len(ranks) == 2 and str(ranks).count("200 of 300 images are not stored") == 1
    assert all(50 < result.own_settings["images"].max() <= 100 for result in ranks)


def test_only_sources_with_images_for_reporting_are_ranked(named, changed):
    tuning = read_preset("made-up")[0]["tuning"]
    vgg, resnet = named("mi", ["vgg", "resnet"])
    few = changed([vgg], lambda rows: rows[rows["index"].isin(tuning)], data="few")
    (result,) = beside([*few, resnet], "made-up")
    (alone,) = beside([resnet], "made-up")
    assert ": source resnet, eps" in result.title
    assert any("source vgg has 0 counted images" in note for note in result.notes)
    pd.testing.assert_frame_equal(result.own_settings, alone.own_settings)


def test_stored_clean_predictions_decide_which_images_count(named, changed):
    jobs = named("mi")
    (honest,) = beside(jobs, "made-up")

    def forged(rows: pd.DataFrame) -> pd.DataFrame:
        """Let the source err on the clean images of which some target resists the attack."""
        resists = rows[(rows["eps_255"] > 0) & (rows["predicted"] == rows["label"])]["index"]
        wrong = rows["index"].isin(resists) & (rows["eps_255"] == 0)
        return rows.assign(predicted=rows["predicted"].where(~wrong, (rows["label"] + 1) % 6))

    (result,) = beside(changed(jobs, forged), "made-up")
    pd.testing.assert_frame_equal(result.own_settings, honest.own_settings)
    assert any("stored clean predictions decide" in note for note in result.notes)

    def relabelled(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(label=rows["label"].where(rows["index"] != 7, (rows["label"] + 1) % 6))

    with pytest.raises(ValueError, match="1 images have other labels"):
        beside(changed(jobs, relabelled), "made-up")


def priced(rows: pd.DataFrame, gradients: float) -> pd.DataFrame:
    return rows.assign(gradients=np.where(rows["eps_255"] > 0, float(gradients), 0))


def test_costs_decide_who_is_of_equal_cost_and_who_used_no_gradient(
    named, changed, tmp_path, monkeypatch
):
    costs = {"weak": 0, "mi": 100, "bim": 104, "pgd": 106, "dim": 94}
    jobs = {
        name: changed(named(name), partial(priced, gradients=cost), name, label=name, attack=name)
        for name, cost in costs.items()
    }
    cards = [job.as_card() for its in jobs.values() for job in its]
    facts = {"preset": "made-up", "preset_version": 1, "tuning": []}
    write_card(cards, tmp_path / "made-up.card", **facts)
    monkeypatch.setattr(src.config.fields, "PRESETS", tmp_path)
    (result,) = beside(jobs["mi"], "made-up", ["dim"])
    assert {*result.equal_cost["attack"]} == {"mi (mine)", "mi", "bim"} and result.cost == 100
    assert "not ranked here: dim" in str(result).partition("equal cost")[2]
    assert result.own_settings["attack"].iloc[0] == "weak"
    assert "weak leads, but it used no gradient of the source." in result.notes
    row = result.own_settings.set_index("attack").loc["dim"]
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    assert f"[{low:+.1f}, {high:+.1f}], p = {row['p']:.2g}" in str(result)
    assert "not ranked" not in str(replace(result, named={}))


def test_results_have_names_and_pages_of_their_own(named, changed):
    jobs, names = named("mi", ["vgg"]), ("mi", "mi (mine)")
    every = [job for name in names for job in changed(jobs, name=f"x{name[-2]}", label=name)]
    ranks = beside(every, "made-up")
    assert len({*(result.attack for result in ranks), *NAMES}) == len(NAMES) + 2
    few = changed(jobs, lambda rows: rows[rows["index"] < 150], "few", data="few")
    ranks = beside([*jobs, *few], "made-up")
    screens = build_report(replace(results_of([*jobs, *few]), ranks=ranks)).page["screens"]
    assert [{*its["own"].values()} for its in screens] == [{its.attack} for its in ranks]


def test_a_sweep_ends_with_the_ranks_that_the_table_shows(
    run_job, run_in, printed_by, workspace, monkeypatch, capsys
):
    words = ("n_images=20", "protocol=all", "attack=fgsm", "report=none", "targets=[fine]")
    assert run_job(*words, "hydra.run.dir=first") == 0
    (job,) = find_jobs([workspace / "first"])
    monkeypatch.setattr(src.config.fields, "PRESETS", workspace)
    facts = {"preset": "tiny", "preset_version": 1, "tuning": []}
    write_card([job.as_card()], workspace / "tiny.card", **facts)
    code, printed = printed_by(run_job, *words, "beside=tiny", "hydra.run.dir=mine")
    assert code == 0
    line = partial(run_in, workspace, module="src.table")
    _, table = printed_by(line, "mine", "--beside", "tiny", "--against", "fgsm")
    ranks = table[table.index("fgsm (mine) beside preset tiny") :].strip()
    assert ranks in printed and ranks in (workspace / "mine" / "summary.txt").read_text("utf-8")
    capsys.readouterr()
    for word in ("beside=smal", "beside=../small", "beside=''", "beside=3"):
        assert run_job(word, "hydra.run.dir=none") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (workspace / "none").exists()  # refused before anything is computed


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ("fgsm", {"preset": "large"}, "large: .*photographs, small"),
    ("fgsm", {"preset": ["small"]}, "photographs, small"),
    ("mii", {"preset": "photographs"}, "mii.*Did you mean"),
    ("mi", {"preset": "photographs", "tuning": True}, "networks.md.*tuning"),
    (None, {}, "NoneType"),
    ({}, {}, "empty"),
    ("nowhere.card", {}, "does not exist"),
    (Path("."), {"tuning": True}, "tuning"),
    (Path("."), {"gradients": 10}, "gradients"),
    (attacks.mi, {"gradients": 10}, "name of an attack"),
]


def test_refusals_of_rank():
    for attack, words, sentence in REFUSED:
        with pytest.raises(ValueError, match=sentence):
            rank(attack, **words)
