"""An attack beside the stored attacks of a preset."""

import re
from collections.abc import Callable
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
from src import rankings
from src.artifacts import Alarm
from src.artifacts.card import CardJob, write_card
from src.artifacts.jobs import FinishedJob, find_jobs
from src.report.beside import Beside, beside, read_preset
from src.report.page.frame import build_report
from src.report.page.html import write_page
from src.report.results import results_of
from src.report.words import ordinal
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


def jobs_named(folder: Path, name: str) -> list[FinishedJob]:
    return [job for job in find_jobs([folder]) if job.record.attack == name]


def card_with(jobs: list[FinishedJob], path: Path, **facts: Any) -> Path:
    """Write a card of jobs whose records differ in some facts."""
    cards = [job.as_card() for job in jobs]
    write_card(
        [
            CardJob(card.record.model_copy(update=facts), card.place, (), card.tables)
            for card in cards
        ],
        path,
    )
    return path


def changed(
    jobs: list[FinishedJob],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    path: Path,
    **facts: Any,
) -> list[FinishedJob]:
    """Return jobs, packed in a card and read again, whose rows and records were changed."""
    cards = []
    for number, job in enumerate(jobs):
        table = job.as_card().tables["predictions"]
        rows = change(table.to_pandas())
        table = pa.Table.from_pandas(rows, table.schema, preserve_index=False)
        counts = {"images": rows["index"].nunique(), "key": f"{path.stem}{number}"}
        record = job.record.model_copy(update=counts | facts)
        cards.append(CardJob(record, ("mine", number), (), {"predictions": table}))
    write_card(cards, path)
    return find_jobs([path])


def test_a_stored_attack_run_as_mine_differs_from_itself_by_nothing(sweep: Path):
    (result,) = beside(jobs_named(sweep, "mi_own"), "made-up")
    row = result.own.set_index("attack").loc["mi"]
    assert row["difference"] == 0 and row["undecided"] and row["p"] == 1
    mine = result.own.set_index("attack").loc["mi_own"]
    assert mine["mean"] == row["mean"] and len(result.own) == len(NAMES) + 1
    assert "cannot be told apart from: mi" in str(result)


@pytest.mark.slow
def test_means_are_those_of_one_sweep_that_ran_all(sweep: Path):
    (result,) = beside(jobs_named(sweep, "dim_own"), "made-up")
    tuning = read_preset("made-up")[0]["tuning"]
    frames = {"mean_tuned": True, "mean": False}
    whole = frame_of_sweep(sweep)
    for column, of_tuning in frames.items():
        rows = results_of_frame(whole[whole["index"].isin(tuning) == of_tuning])
        expected = rankings(rows).query("source == 'mean of 3 sources'").set_index("attack")["mean"]
        got = result.own.set_index("attack")[column]
        for name in NAMES:
            assert got[name] == pytest.approx(expected[f"{name}_own"], abs=1e-12)
    assert result.own["images"].max() <= 300 - len(tuning)


@pytest.mark.slow
def test_one_against_all_sees_smaller_differences_than_all_pairs(sweep: Path):
    (result,) = beside(jobs_named(sweep, "bim_own"), "made-up")
    one = result.own.set_index("attack")
    every = rankings(sweep).query("source == 'mean of 3 sources'").set_index("attack")
    assert (one["difference"].drop("bim_own").abs() <= 1).all()
    width = (one["difference_high"] - one["difference_low"]).max()
    wide = (every["difference_high"] - every["difference_low"]).max()
    assert 0 < width < wide * np.sqrt(300 / (300 - 60))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"weights": {"vgg": "other"}}, "source vgg has another digest of weights"),
        (
            {"weights": {"vgg": "other"}, "config": {"model": {"vgg": {"weights": "included"}}}},
            "source vgg has another digest of a module passed to transfer",
        ),
        ({"source": "vgg@jpeg"}, "source vgg@jpeg is not stored"),
        ({"norm": "l2"}, r"norm \(l2, linf\)"),
        ({"storage": "uint8"}, r"storage \(uint8, float32\)"),
        ({"precision": "bf16"}, r"precision \(bf16, 32-true\)"),
        ({"budgets": (0.0, 8.0), "reference": 8.0}, "budgets 8/255; stored is 4/255"),
    ],
)
def test_what_does_not_fit_is_named_and_not_compared(
    sweep: Path, facts: dict[str, Any], reason: str
):
    job = jobs_named(sweep, "mi_own")[0]
    for key in facts.keys() & {"weights", "config"}:
        facts = facts | {key: getattr(job.record, key) | facts[key]}
    changed = replace(job, record=job.record.model_copy(update=facts))
    changed.__dict__["predictions"] = job.predictions
    with pytest.raises(ValueError, match=reason):
        beside([changed], "made-up")


def test_a_target_with_other_weights_is_left_out(sweep: Path, tmp_path: Path):
    jobs = [job for job in jobs_named(sweep, "mi_own") if job.record.source == "vgg"]
    weights = jobs[0].record.weights | {"vit": "other"}
    card = card_with(jobs, tmp_path / "mine.parquet", weights=weights)
    (result,) = beside(find_jobs([card]), "made-up")
    assert "target vit has another digest of weights" in str(result)
    assert (result.own["targets"].dropna() == 1).all()  # resnet alone


def test_other_images_are_never_compared(sweep: Path, tmp_path: Path):
    others = make_sweep(tmp_path / "others", **SWEEP | {"attacks": ("mine",), "first": 1000})
    with pytest.raises(ValueError, match="300 of 300 images are not stored"):
        beside(find_jobs([others]), "made-up")
    some = make_sweep(tmp_path / "some", **SWEEP | {"attacks": ("mine",), "first": 200})
    with pytest.raises(ValueError, match="images have other labels than the stored ones"):
        beside(find_jobs([some]), "made-up")

    def with_new_images(rows: pd.DataFrame) -> pd.DataFrame:
        new = "new" + rows["index"].astype(str)
        return rows.assign(image=rows["image"].where(rows["index"] < 100, new))

    mine = changed(jobs_named(sweep, "mi_own"), with_new_images, tmp_path / "mine.parquet")
    (result,) = beside(mine, "made-up")
    assert "200 of 300 images are not stored" in str(result)
    assert 50 < result.own["images"].max() <= 100


@pytest.mark.slow
def test_the_line_prints_the_ranks_below_the_table(
    sweep: Path, run_in: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    card = card_with(jobs_named(sweep, "mi_own"), tmp_path / "mine.parquet")
    assert run_in(tmp_path, str(card), "--beside", "made-up", module="src.table") == 0
    printed = capsys.readouterr().out
    assert "mi_own beside preset made-up, version 1" in printed
    assert "on the images for tuning" in printed
    assert run_in(tmp_path, str(card), "--beside", "made-down", module="src.table") == 2
    assert "made-up" in capsys.readouterr().err
    words = ("--beside", "made-up", "--against", "weak")
    assert run_in(tmp_path, str(card), *words, module="src.table") == 0
    assert re.search(r"^ +\d+  weak .*, p = ", capsys.readouterr().out, re.MULTILINE)
    assert run_in(tmp_path, str(card), *words[:-1], "mii", module="src.table") == 2
    assert "against=mii: preset made-up has bim, dim, mi, pgd, weak." in capsys.readouterr().err
    for alone in (["--against", "mi"], ["--beside", ""]):
        assert run_in(tmp_path, str(card), *alone, module="src.table") == 2


def test_notes_that_all_attacks_share_are_printed_once(sweep: Path, tmp_path: Path):
    def with_new_images(rows: pd.DataFrame) -> pd.DataFrame:
        new = "new" + rows["index"].astype(str)
        return rows.assign(image=rows["image"].where(rows["index"] < 100, new))

    jobs = [*jobs_named(sweep, "mi_own"), *jobs_named(sweep, "bim_own")]
    ranks = beside(changed(jobs, with_new_images, tmp_path / "mine.parquet"), "made-up")
    assert len(ranks) == 2 and str(ranks).count("images are not stored") == 1


@pytest.mark.slow
def test_the_page_opens_with_the_rank(
    sweep: Path, run_in: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    jobs = jobs_named(sweep, "mi_own")
    results = replace(results_of(jobs), ranks=beside(jobs, "made-up"))
    report = build_report(results)
    (result,) = results.ranks
    table = result.own.set_index("attack")
    row, alike = table.loc["mi_own"], table["undecided"].sum() - 1
    ahead = (~table["undecided"].astype(bool) & (table["mean"] > row["mean"])).sum()
    lead, _, details = report.answer
    assert lead == f"mi_own is {ordinal(int(row['rank']))} of {len(NAMES) + 1} attacks"
    places = [ordinal(int(place)) for place in (ahead + 1, ahead + 1 + alike)]
    assert f"Tests place it {places[0]} to {places[1]}: ahead " in details
    (screen,) = report.page["screens"]
    at = screen["axes"]["eps_255"].index(result.eps_255)
    rows = {its["name"]: its for its in screen["rankings"][f"0.0.{at}"]["rows"]}
    assert rows.keys() == {*table.index}
    for name, its in rows.items():
        assert its["line"]["value"] == (0 if name == "mi_own" else table["difference"][name])
    assert {f"{100 * mean:.1f}" for mean in table["mean"]} <= {*screen["rows"]["fooled"]["text"]}
    write_page(report, tmp_path / "report.html", tmp_path)
    assert lead in (tmp_path / "report.html").read_text("utf-8")
    assert run_in(tmp_path, "beside=made-up", module="src.report.__main__") == 2
    assert "python -m src.table FOLDER --beside PRESET" in capsys.readouterr().err


def test_a_sweep_ends_with_the_ranks_that_the_table_shows(
    run_job: Callable[..., int],
    run_in: Callable[..., int],
    printed_by: Callable[..., tuple[int, str]],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    words = ("n_images=40", "protocol=all", "attack=fgsm", "report=none", "tracking=none")
    assert run_job(*words, "hydra.run.dir=first") == 0
    (job,) = find_jobs([workspace / "first"])
    monkeypatch.setattr(src.config.fields, "PRESETS", workspace)
    facts = {"preset": "tiny", "preset_version": 1, "tuning": []}
    write_card([job.as_card()], workspace / "tiny.card", **facts)
    words += ("beside=tiny", "hydra.run.dir=mine")
    code, printed = printed_by(run_job, *words)
    assert code == 0
    _, table = printed_by(
        partial(run_in, workspace, module="src.table"), "mine", "--beside", "tiny"
    )
    ranks = table[table.index("fgsm (mine) beside preset tiny") :].strip()
    assert ranks in printed
    assert ranks in (workspace / "mine" / "summary.txt").read_text("utf-8")
    code, printed = printed_by(run_job, *words, "epsilon.grid=[2]", "hydra.run.dir=other")
    assert code == 0 and (workspace / "other" / "attacks.csv").is_file()
    assert "beside=tiny: nothing can be compared" in printed


def test_an_unknown_preset_is_refused_before_anything_is_computed(
    run_job: Callable[..., int], workspace: Path, capsys: pytest.CaptureFixture[str]
):
    for word in ("beside=smal", "beside=../small", "beside=''", "beside=3"):
        assert run_job(word, "hydra.run.dir=none") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (workspace / "none").exists()


def as_they_are(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def test_only_sources_with_images_for_reporting_are_ranked(sweep: Path, tmp_path: Path):
    tuning = read_preset("made-up")[0]["tuning"]

    def of_tuning(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["index"].isin(tuning)]

    vgg, resnet, _ = sorted(
        jobs_named(sweep, "mi_own"), key=lambda job: MODELS.index(job.record.source)
    )
    few = changed([vgg], of_tuning, tmp_path / "few.parquet", data="few")
    (result,) = beside([*few, resnet], "made-up")
    (alone,) = beside([resnet], "made-up")
    assert ": source resnet, eps" in result.title
    assert any("source vgg has 0 counted images" in note for note in result.notes)
    pd.testing.assert_frame_equal(result.own, alone.own)
    (result,) = beside(few, "made-up")
    assert ": source vgg, eps" in result.title
    counted = result.own["images"].max()
    assert f"Images for tuning: {counted:g} of {counted:g}." in str(result)


@pytest.mark.slow
def test_an_attack_that_does_not_fit_is_named_after_the_others(sweep: Path, tmp_path: Path):
    other = changed(
        jobs_named(sweep, "bim_own"), as_they_are, tmp_path / "bim.parquet", norm="l2", label="<b>"
    )
    fits = jobs_named(sweep, "mi_own")
    ranks = beside([*other, *fits], "made-up")
    assert [result.attack for result in ranks] == ["mi_own"]
    reason = "<b>: Not compared: the job and the stored one differ in norm (l2, linf)."
    assert ranks.notes == (reason,) and str(ranks).endswith(reason)


def test_stored_clean_predictions_decide_which_images_count(sweep: Path, tmp_path: Path):
    jobs = jobs_named(sweep, "mi_own")
    (honest,) = beside(jobs, "made-up")

    def forged(rows: pd.DataFrame) -> pd.DataFrame:
        """Let the source err on the clean images of which some target resists the attack."""
        resists = rows[(rows["eps_255"] > 0) & (rows["predicted"] == rows["label"])]["index"]
        wrong = rows["index"].isin(resists) & (rows["eps_255"] == 0)
        return rows.assign(predicted=rows["predicted"].where(~wrong, (rows["label"] + 1) % 6))

    (result,) = beside(changed(jobs, forged, tmp_path / "forged.parquet"), "made-up")
    pd.testing.assert_frame_equal(result.own, honest.own)
    assert any("stored clean predictions decide" in note for note in result.notes)

    def relabelled(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(label=rows["label"].where(rows["index"] != 7, (rows["label"] + 1) % 6))

    with pytest.raises(ValueError, match="1 images have other labels"):
        beside(changed(jobs, relabelled, tmp_path / "other.parquet"), "made-up")


def test_targets_that_a_job_lacks_are_left_out_of_all_means(sweep: Path, tmp_path: Path):
    (job,) = [its for its in jobs_named(sweep, "mi_own") if its.record.source == "vgg"]

    def on_resnet(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["eps_255"] == 0) | (rows["target"] == "resnet")]

    mine = changed([job], on_resnet, tmp_path / "mine.parquet", targets=["resnet"])
    (result,) = beside(mine, "made-up")
    rows = result.own.set_index("attack")
    assert (rows["targets"] == 1).all() and rows.loc["mi", "difference"] == 0
    assert "Source vgg: all means are without target vit." in result.notes


@pytest.mark.parametrize("models", [("vgg", "none", "other"), ("vgg",)])
def test_one_note_says_that_no_target_is_shared(
    sweep: Path, tmp_path: Path, models: tuple[str, ...]
):
    facts = SWEEP | {"models": models, "sources": ("vgg",), "attacks": ("mine",)}
    mine = find_jobs([make_sweep(tmp_path / "mine", **facts)])
    ranks = beside([*mine, *jobs_named(sweep, "bim_own")], "made-up")
    note = "mine: Not compared: no target is shared; those stored are resnet, vit."
    assert ranks.notes == (note,) and [result.attack for result in ranks] == ["bim_own"]


def test_the_mean_on_the_images_for_tuning_is_printed_once(sweep: Path):
    (result,) = beside(jobs_named(sweep, "mi_own"), "made-up")
    mean = result.own.set_index("attack")["mean_tuned"]["mi_own"]
    assert str(result).count(f"images for tuning: {100 * mean:.1f}%") == 1
    assert str(replace(result, equal_cost=result.own)).count("images for tuning") == 1


def test_images_outside_the_budget_are_named_and_no_other_alarm(sweep: Path, tmp_path: Path):
    names = ("clipped", "over_budget", "few_images")
    alarms = [Alarm(name, f"mi_own: finding of {name}") for name in names]
    jobs = [replace(job.as_card(), alarms=alarms) for job in jobs_named(sweep, "mi_own")]
    write_card(jobs, tmp_path / "mine.parquet")
    (result,) = beside(find_jobs([tmp_path / "mine.parquet"]), "made-up")
    assert [note for note in result.notes if "finding" in note] == [
        "mi_own: finding of clipped",
        "mi_own: finding of over_budget",
    ]


def test_where_8_bits_are_the_main_storage_the_mean_says_which_counts(sweep: Path, tmp_path: Path):
    """The stored images are float32, so the job's rows of these are compared."""
    cards = []
    for job in jobs_named(sweep, "mi_own"):
        rows = job.as_card().tables["predictions"]
        place = rows.schema.get_field_index("predicted")
        wrong = rows.set_column(place, rows.schema.field(place), rows["label"])  # nothing fooled
        tables = {"predictions": wrong, "predictions-float32": rows}
        record = job.record.model_copy(update={"storage": "uint8"})
        cards.append(replace(job.as_card(), record=record, tables=tables))
    write_card(cards, tmp_path / "mine.parquet")
    (result,) = beside(find_jobs([tmp_path / "mine.parquet"]), "made-up")
    row = result.own.set_index("attack").loc["mi_own"]
    stored = result.own.set_index("attack").loc["mi"]
    assert row["storage"] == stored["storage"] == "float32" and row["mean"] == stored["mean"] > 0
    mean = next(line for line in str(result).splitlines() if line.startswith("rank "))
    assert f"{row['mean']:.1%}" in mean and mean.endswith(f"{row['images']:g} float32 images")


def test_seeds_and_defences_are_named(sweep: Path, tmp_path: Path):
    facts: dict[str, Any] = {"models": MODELS, "budgets": (4.0,), "full": False, "images": 300}
    facts |= {"attacks": ("mi_own",), "sources": ("vgg",)}
    make_sweep(tmp_path / "mine" / "0", **facts, defences=("jpeg",))
    make_sweep(tmp_path / "mine" / "1", **facts, seed=1, defences=("jpeg",))
    (result,) = beside(find_jobs([tmp_path / "mine"]), "made-up")
    assert "Not compared: targets behind jpeg." in result.notes
    assert "Source vgg: mean of 2 seeds." in result.notes


def test_names_of_results_differ(sweep: Path, tmp_path: Path):
    jobs = jobs_named(sweep, "mi_own")
    names = ("mi", "mi (mine)")
    every = [
        job
        for name in names
        for job in changed(jobs, as_they_are, tmp_path / f"{name[-2]}.parquet", label=name)
    ]
    results = beside(every, "made-up")
    assert len({*(result.attack for result in results), *NAMES}) == len(NAMES) + 2
    page = build_report(replace(results_of(every), ranks=results)).page
    (screen,) = page["screens"]
    pairs = zip(page["jobs"], screen["jobs"], strict=True)
    shown = {attack: name for (attack, _), (name, _) in pairs}
    assert [shown[name] for name in names] == [result.attack for result in results]


def test_sweeps_that_cannot_be_compared_have_the_ranks_of_their_own_jobs(
    sweep: Path, tmp_path: Path
):
    def first(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["index"] < 150]

    jobs, path = jobs_named(sweep, "mi_own"), tmp_path / "few.parquet"
    every = [*jobs, *changed(jobs, first, path, images=150, data="few")]
    ranks = beside(every, "made-up")
    screens = build_report(replace(results_of(every), ranks=ranks)).page["screens"]
    assert [{*its["own"].values()} for its in screens] == [{its.attack} for its in ranks]
    code = {"program": "other"}
    apart = [jobs[0], *changed(jobs[1:], as_they_are, tmp_path / "apart.parquet", code=code)]
    ranks = beside(apart, "made-up")
    assert build_report(replace(results_of(apart), ranks=ranks)).page["screens"] == []


@pytest.mark.parametrize("value", [float("inf"), -1.0])
def test_impossible_costs_are_refused(sweep: Path, tmp_path: Path, value: float):
    with pytest.raises(ValueError, match="column gradients"):
        changed(
            jobs_named(sweep, "mi_own"),
            lambda rows: rows.assign(gradients=value),
            tmp_path / "mine.parquet",
        )
    with pytest.raises(ValueError, match="no valid record"):
        changed(
            jobs_named(sweep, "mi_own"),
            as_they_are,
            tmp_path / "record.parquet",
            fit_gradients=value,
        )


@pytest.fixture
def priced(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Beside]:
    """A function that ranks an attack of the preset `made-up`, whose attacks have some costs."""

    def with_cost(job: FinishedJob, gradients: float) -> pa.Table:
        table = job.as_card().tables["predictions"]
        place = table.schema.get_field_index("gradients")
        values = np.where(table["eps_255"].to_numpy() > 0, gradients, 0)
        return table.set_column(place, table.schema.field(place), [values.astype(float)])

    def ranked(attack: str, *against: str, **other: float) -> Beside:
        costs = {"weak": 10, "mi": 10.4, "bim": 10.6, "pgd": 100, "dim": 9.4} | other
        cards = []
        for job in find_jobs([sweep]):
            name = job.record.attack.removesuffix("_own")
            tables = {"predictions": with_cost(job, costs[name])}
            facts = {"attack": name, "label": name}
            record = job.record.model_copy(update=facts)
            cards.append(CardJob(record, ("made-up", len(cards)), (), tables))
        facts = {"preset": "made-up", "preset_version": 1, "tuning": []}
        write_card(cards, tmp_path / "made-up.card", **facts)
        jobs = find_jobs([tmp_path / "made-up.card"])
        (result,) = beside([job for job in jobs if job.attack == attack], "made-up", against)
        return result

    monkeypatch.setattr(src.config.fields, "PRESETS", tmp_path)
    return ranked


def test_costs_decide_who_is_of_equal_cost(priced: Callable[..., Beside]):
    result = priced("weak")
    assert {*result.equal_cost["attack"]} == {"weak (mine)", "weak", "mi"}
    assert result.cost == 10


def lines_of(result: Beside, attack: str) -> list[str]:
    """Return the lines of a result that begin with a rank and an attack's name."""
    return [line for line in str(result).splitlines() if line.split()[1:2] == [attack]]


def test_a_named_attack_has_a_line_with_its_difference_interval_and_p(
    priced: Callable[..., Beside],
):
    others = dict.fromkeys(("mi", "bim", "dim"), 1.0)
    for cost, tables in ((100.0, ("own", "equal_cost")), (10.0, ("own",))):
        named = priced("pgd", "dim", **others | {"dim": cost})
        lines = lines_of(named, "dim")
        assert len(lines) == len(tables)
        for line, table in zip(lines, tables, strict=True):
            row = getattr(named, table).set_index("attack").loc["dim"]
            low, high = 100 * row["difference_low"], 100 * row["difference_high"]
            assert f"[{low:+.1f}, {high:+.1f}], p = {row['p']:.2g}" in line
        absent = "not ranked here: dim" in str(named).partition("equal cost")[2]
        assert absent == (len(tables) == 1)
    plain = str(replace(named, named={}))
    assert "dim" not in plain.partition("cannot be told")[0] and "not ranked here" not in plain


def test_an_unknown_name_is_refused_with_those_there_are(sweep: Path):
    with pytest.raises(ValueError, match=r"^against=mii: .*\bbim, dim, mi, pgd, weak\.$"):
        beside(jobs_named(sweep, "mi_own"), "made-up", ["mi", "mii"])


@pytest.mark.parametrize("cost", [0.0, 1.0])
def test_a_leader_without_a_gradient_of_the_source_is_named(
    priced: Callable[..., Beside], cost: float
):
    result = priced("pgd", weak=cost)
    assert result.own["attack"].iloc[0] == "weak"
    said = [its for its in result.notes if "no gradient" in its]
    assert said == ["weak leads, but it used no gradient of the source."] * (cost == 0)
