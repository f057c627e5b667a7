"""An attack beside the stored attacks of a preset, and `rank`, which runs it on their images."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from os import mkfifo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from torch.nn.functional import cross_entropy

import findings.baselines
import src.config.fields
from findings.baselines import pack_preset
from src import attacks, rank, rankings
from src.artifacts import Alarm
from src.artifacts.card import CardJob, write_card
from src.artifacts.jobs import FinishedJob, find_jobs
from src.report.beside import Beside, beside, read_preset
from src.report.page.frame import build_report
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


@pytest.fixture
def named(sweep: Path) -> Callable[..., list[FinishedJob]]:
    """A function that returns the jobs of the sweep that ran an attack, from some sources."""

    def jobs(name: str, sources: Sequence[str] = MODELS) -> list[FinishedJob]:
        found = [job for job in find_jobs([sweep]) if job.record.attack == f"{name}_own"]
        return [job for source in sources for job in found if job.record.source == source]

    return jobs


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., list[FinishedJob]]:
    """A function that returns jobs, packed in a card, whose rows and records were changed."""

    def change(
        jobs: list[FinishedJob],
        rows_of: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
        name: str = "mine",
        alarms: Sequence[Alarm] = (),
        tables: Callable[[pa.Table], dict[str, pa.Table]] = lambda table: {"predictions": table},
        **facts: Any,
    ) -> list[FinishedJob]:
        cards = []
        for number, job in enumerate(jobs):
            table = job.as_card().tables["predictions"]
            rows = rows_of(table.to_pandas())
            table = pa.Table.from_pandas(rows, table.schema, preserve_index=False)
            counts = {"images": rows["index"].nunique(), "key": f"{name}{number}"}
            record = job.record.model_copy(update=counts | facts)
            cards.append(CardJob(record, (name, number), alarms, tables(table)))
        write_card(cards, tmp_path / f"{name}.parquet")
        return find_jobs([tmp_path / f"{name}.parquet"])

    return change


def with_new_images(rows: pd.DataFrame) -> pd.DataFrame:
    new = "new" + rows["index"].astype(str)
    return rows.assign(image=rows["image"].where(rows["index"] < 100, new))


def test_a_stored_attack_run_as_mine_differs_from_itself_by_nothing(named):
    (result,) = beside(named("mi"), "made-up")
    table = result.own.set_index("attack")
    row, mine = table.loc["mi"], table.loc["mi_own"]
    assert row["difference"] == 0 and row["undecided"] and row["p"] == 1
    assert mine["mean"] == row["mean"] and len(table) == len(NAMES) + 1
    assert "cannot be told apart from: mi" in str(result)
    tuned = f"images for tuning: {100 * mine['mean_tuned']:.1f}%"
    assert str(replace(result, equal_cost=result.own)).count(tuned) == 1


@pytest.mark.slow
def test_means_are_those_of_one_sweep_that_ran_all(named, sweep):
    (result,) = beside(named("dim"), "made-up")
    tuning = read_preset("made-up")[0]["tuning"]
    whole = frame_of_sweep(sweep)
    for column, of_tuning in {"mean_tuned": True, "mean": False}.items():
        rows = results_of_frame(whole[whole["index"].isin(tuning) == of_tuning])
        expected = rankings(rows).query("source == 'mean of 3 sources'").set_index("attack")["mean"]
        got = result.own.set_index("attack")[column]
        for name in NAMES:
            assert got[name] == pytest.approx(expected[f"{name}_own"], abs=1e-12)
    assert result.own["images"].max() <= 300 - len(tuning)


UNFIT = [
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
]


def test_what_does_not_fit_is_named_and_not_compared(named, changed):
    (job,) = named("mi", ["vgg"])
    for facts, reason in UNFIT:
        for key in facts.keys() & {"weights", "config"}:
            facts = facts | {key: getattr(job.record, key) | facts[key]}
        unfit = replace(job, record=job.record.model_copy(update=facts))
        unfit.__dict__["predictions"] = job.predictions
        with pytest.raises(ValueError, match=reason):
            beside([unfit], "made-up")
    other = changed(named("bim"), norm="l2", label="<b>")
    ranks = beside([*other, *named("mi")], "made-up")
    assert [result.attack for result in ranks] == ["mi_own"]
    reason = "<b>: Not compared: the job and the stored one differ in norm (l2, linf)."
    assert ranks.notes == (reason,) and str(ranks).endswith(reason)
    with pytest.raises(ValueError, match=r"^against=mii: .*\bbim, dim, mi, pgd, weak\.$"):
        beside([job], "made-up", ["mi", "mii"])
    for value in (float("inf"), -1.0):
        with pytest.raises(ValueError, match="column gradients"):
            changed([job], lambda rows, value=value: rows.assign(gradients=value))
        with pytest.raises(ValueError, match="no valid record"):
            changed([job], fit_gradients=value)


def test_targets_that_are_not_shared_are_left_out_of_all_means(named, changed, tmp_path):
    jobs = named("mi", ["vgg"])
    weights = jobs[0].record.weights | {"vit": "other"}
    (result,) = beside(changed(jobs, weights=weights), "made-up")
    assert "target vit has another digest of weights" in str(result)
    assert (result.own["targets"].dropna() == 1).all()  # resnet alone

    def on_resnet(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["eps_255"] == 0) | (rows["target"] == "resnet")]

    (result,) = beside(changed(jobs, on_resnet, targets=["resnet"]), "made-up")
    rows = result.own.set_index("attack")
    assert (rows["targets"] == 1).all() and rows.loc["mi", "difference"] == 0
    assert "Source vgg: all means are without target vit." in result.notes
    note = "mine: Not compared: no target is shared; those stored are resnet, vit."
    for models in (("vgg", "none", "other"), ("vgg",)):
        facts = SWEEP | {"models": models, "sources": ("vgg",), "attacks": ("mine",)}
        mine = find_jobs([make_sweep(tmp_path / f"{len(models)}", **facts)])
        ranks = beside([*mine, *named("bim")], "made-up")
        assert ranks.notes == (note,) and [result.attack for result in ranks] == ["bim_own"]


def test_other_images_are_never_compared(named, changed, tmp_path):
    for first, reason in (
        (1000, "300 of 300 images are not stored"),
        (200, "images have other labels than the stored ones"),
    ):
        others = make_sweep(tmp_path / f"{first}", **SWEEP | {"attacks": ("a",), "first": first})
        with pytest.raises(ValueError, match=reason):
            beside(find_jobs([others]), "made-up")
    ranks = beside(changed([*named("mi"), *named("bim")], with_new_images), "made-up")
    assert len(ranks) == 2 and str(ranks).count("200 of 300 images are not stored") == 1
    assert all(50 < result.own["images"].max() <= 100 for result in ranks)


def test_only_sources_with_images_for_reporting_are_ranked(named, changed):
    tuning = read_preset("made-up")[0]["tuning"]
    vgg, resnet = named("mi", ["vgg", "resnet"])
    few = changed([vgg], lambda rows: rows[rows["index"].isin(tuning)], data="few")
    (result,) = beside([*few, resnet], "made-up")
    (alone,) = beside([resnet], "made-up")
    assert ": source resnet, eps" in result.title
    assert any("source vgg has 0 counted images" in note for note in result.notes)
    pd.testing.assert_frame_equal(result.own, alone.own)
    (result,) = beside(few, "made-up")
    assert ": source vgg, eps" in result.title
    counted = result.own["images"].max()
    assert f"Images for tuning: {counted:g} of {counted:g}." in str(result)


def test_stored_clean_predictions_decide_which_images_count(named, changed):
    jobs = named("mi")
    (honest,) = beside(jobs, "made-up")

    def forged(rows: pd.DataFrame) -> pd.DataFrame:
        """Let the source err on the clean images of which some target resists the attack."""
        resists = rows[(rows["eps_255"] > 0) & (rows["predicted"] == rows["label"])]["index"]
        wrong = rows["index"].isin(resists) & (rows["eps_255"] == 0)
        return rows.assign(predicted=rows["predicted"].where(~wrong, (rows["label"] + 1) % 6))

    (result,) = beside(changed(jobs, forged), "made-up")
    pd.testing.assert_frame_equal(result.own, honest.own)
    assert any("stored clean predictions decide" in note for note in result.notes)

    def relabelled(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(label=rows["label"].where(rows["index"] != 7, (rows["label"] + 1) % 6))

    with pytest.raises(ValueError, match="1 images have other labels"):
        beside(changed(jobs, relabelled), "made-up")


def test_alarms_on_budgets_and_seeds_and_defences_are_named(named, changed, tmp_path):
    names = ("clipped", "over_budget", "few_images")
    alarms = [Alarm(name, f"mi_own: finding of {name}") for name in names]
    (result,) = beside(changed(named("mi"), alarms=alarms), "made-up")
    found = [note for note in result.notes if "finding" in note]
    assert found == ["mi_own: finding of clipped", "mi_own: finding of over_budget"]
    facts = SWEEP | {"attacks": ("mi_own",), "sources": ("vgg",), "defences": ("jpeg",)}
    for seed in range(2):
        make_sweep(tmp_path / "seeds" / f"{seed}", **facts, seed=seed)
    (result,) = beside(find_jobs([tmp_path / "seeds"]), "made-up")
    assert "Not compared: targets behind jpeg." in result.notes
    assert "Source vgg: mean of 2 seeds." in result.notes


def test_where_8_bits_are_the_main_storage_the_mean_says_which_counts(named, changed):
    """The stored images are float32, so the job's rows of these are compared."""

    def both(table: pa.Table) -> dict[str, pa.Table]:
        place = table.schema.get_field_index("predicted")
        wrong = table.set_column(place, table.schema.field(place), table["label"])  # none fooled
        return {"predictions": wrong, "predictions-float32": table}

    (result,) = beside(changed(named("mi"), tables=both, storage="uint8"), "made-up")
    row, stored = (result.own.set_index("attack").loc[name] for name in ("mi_own", "mi"))
    assert row["storage"] == stored["storage"] == "float32" and row["mean"] == stored["mean"] > 0
    mean = next(line for line in str(result).splitlines() if line.startswith("rank "))
    assert f"{row['mean']:.1%}" in mean and mean.endswith(f"{row['images']:g} float32 images")


@pytest.fixture
def priced(named, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Beside]:
    """A function that ranks an attack of the preset `made-up`, whose attacks have some costs."""

    def ranked(attack: str, *against: str, **other: float) -> Beside:
        costs = {"weak": 10, "mi": 10.4, "bim": 10.6, "pgd": 100, "dim": 9.4} | other
        cards = []
        for name in NAMES:
            for job in named(name):
                table = job.as_card().tables["predictions"]
                place = table.schema.get_field_index("gradients")
                values = np.where(table["eps_255"].to_numpy() > 0, float(costs[name]), 0)
                table = table.set_column(place, table.schema.field(place), [values])
                record = job.record.model_copy(update={"attack": name, "label": name})
                cards.append(CardJob(record, ("made-up", len(cards)), (), {"predictions": table}))
        facts = {"preset": "made-up", "preset_version": 1, "tuning": []}
        write_card(cards, tmp_path / "made-up.card", **facts)
        with monkeypatch.context() as patch:
            patch.setattr(src.config.fields, "PRESETS", tmp_path)
            jobs = find_jobs([tmp_path / "made-up.card"])
            (result,) = beside([job for job in jobs if job.attack == attack], "made-up", against)
        return result

    return ranked


def test_costs_decide_who_is_of_equal_cost_and_who_used_no_gradient(priced):
    result = priced("weak")
    assert {*result.equal_cost["attack"]} == {"weak (mine)", "weak", "mi"} and result.cost == 10
    for cost in (0.0, 1.0):
        result = priced("pgd", weak=cost)
        assert result.own["attack"].iloc[0] == "weak"
        said = [its for its in result.notes if "no gradient" in its]
        assert said == ["weak leads, but it used no gradient of the source."] * (cost == 0)


def test_a_named_attack_has_a_line_with_its_difference_interval_and_p(priced):
    others = dict.fromkeys(("mi", "bim", "dim"), 1.0)
    for cost, tables in ((100.0, ("own", "equal_cost")), (10.0, ("own",))):
        result = priced("pgd", "dim", **others | {"dim": cost})
        lines = [its for its in str(result).splitlines() if its.split()[1:2] == ["dim"]]
        for line, table in zip(lines, tables, strict=True):
            row = getattr(result, table).set_index("attack").loc["dim"]
            low, high = 100 * row["difference_low"], 100 * row["difference_high"]
            assert f"[{low:+.1f}, {high:+.1f}], p = {row['p']:.2g}" in line
        absent = "not ranked here: dim" in str(result).partition("equal cost")[2]
        assert absent == (len(tables) == 1)
    plain = str(replace(result, named={}))
    assert "dim" not in plain.partition("cannot be told")[0] and "not ranked here" not in plain


def test_the_page_opens_with_the_rank(named):
    jobs = named("mi")
    results = replace(results_of(jobs), ranks=beside(jobs, "made-up"))
    report, (result,) = build_report(results), results.ranks
    table = result.own.set_index("attack")
    row, alike = table.loc["mi_own"], table["undecided"].sum() - 1
    ahead = (~table["undecided"].astype(bool) & (table["mean"] > row["mean"])).sum()
    lead, _, details = report.answer
    assert lead == f"mi_own is {ordinal(int(row['rank']))} of {len(NAMES) + 1} attacks"
    places = [ordinal(int(place)) for place in (ahead + 1, ahead + 1 + alike)]
    assert f"Tests place it {places[0]} to {places[1]}: ahead " in details
    (screen,) = report.page["screens"]
    at = screen["axes"]["eps_255"].index(result.eps_255)
    rows = {its["name"]: its["line"] for its in screen["rankings"][f"0.0.{at}"]["rows"]}
    assert {name: its["value"] for name, its in rows.items()} == {
        name: 0 if name == "mi_own" else difference
        for name, difference in table["difference"].items()
    }
    assert {f"{100 * mean:.1f}" for mean in table["mean"]} <= {*screen["rows"]["fooled"]["text"]}


def test_results_have_names_and_pages_of_their_own(named, changed):
    jobs, names = named("mi"), ("mi", "mi (mine)")
    every = [job for name in names for job in changed(jobs, name=f"x{name[-2]}", label=name)]
    ranks = beside(every, "made-up")
    assert len({*(result.attack for result in ranks), *NAMES}) == len(NAMES) + 2
    page = build_report(replace(results_of(every), ranks=ranks)).page
    (screen,) = page["screens"]
    pairs = zip(page["jobs"], screen["jobs"], strict=True)
    shown = {attack: name for (attack, _), (name, _) in pairs}
    assert [shown[name] for name in names] == [result.attack for result in ranks]
    few = changed(jobs, lambda rows: rows[rows["index"] < 150], "few", data="few")
    ranks = beside([*jobs, *few], "made-up")
    screens = build_report(replace(results_of([*jobs, *few]), ranks=ranks)).page["screens"]
    assert [{*its["own"].values()} for its in screens] == [{its.attack} for its in ranks]
    apart = [jobs[0], *changed(jobs[1:], code={"program": "other"})]
    ranks = beside(apart, "made-up")
    assert build_report(replace(results_of(apart), ranks=ranks)).page["screens"] == []


@pytest.mark.slow
def test_the_line_prints_the_ranks_below_the_table(named, changed, run_in, capsys, tmp_path):
    changed(named("mi"))
    line = partial(run_in, tmp_path, "mine.parquet", module="src.table")
    assert line("--beside", "made-up", "--against", "weak") == 0
    printed = capsys.readouterr().out
    assert "mine beside preset made-up, version 1" in printed.replace("mi_own", "mine")
    assert re.search(r"^ +\d+  weak .*, p = ", printed, re.MULTILINE)
    for words, said in (
        (["--beside", "made-down"], "made-up"),
        (["--beside", "made-up", "--against", "mii"], "against=mii: preset made-up has bim, "),
        (["--against", "mi"], ""),
        (["--beside", ""], ""),
    ):
        assert line(*words) == 2 and said in capsys.readouterr().err
    assert run_in(tmp_path, "beside=made-up", module="src.report.__main__") == 2
    assert "python -m src.table FOLDER --beside PRESET" in capsys.readouterr().err


def test_a_sweep_ends_with_the_ranks_that_the_table_shows(
    run_job, run_in, printed_by, workspace, monkeypatch, capsys
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
    line = partial(run_in, workspace, module="src.table")
    _, table = printed_by(line, "mine", "--beside", "tiny")
    ranks = table[table.index("fgsm (mine) beside preset tiny") :].strip()
    assert ranks in printed and ranks in (workspace / "mine" / "summary.txt").read_text("utf-8")
    code, printed = printed_by(run_job, *words, "epsilon.grid=[2]", "hydra.run.dir=other")
    assert code == 0 and (workspace / "other" / "attacks.csv").is_file()
    assert "beside=tiny: nothing can be compared" in printed
    capsys.readouterr()
    for word in ("beside=smal", "beside=../small", "beside=''", "beside=3"):
        assert run_job(word, "hydra.run.dir=none") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (workspace / "none").exists()  # refused before anything is computed


def of_four_arguments(model: Any, images: Any, labels: Any, eps: Any) -> Any:
    images = images.clone().requires_grad_()
    cross_entropy(model(images), labels, reduction="sum").backward()
    return (images + eps * images.grad.sign()).clamp(0, 1).detach()


@pytest.mark.slow
@pytest.mark.parametrize("attack", [partial(attacks.fgsm), of_four_arguments])
def test_a_stored_attack_called_as_a_function_gives_what_is_stored(attack):
    (result,) = rank(attack, source="vgg_small", tuning=True)
    rows = result.own.set_index("attack")
    assert rows.loc["fgsm", "difference"] == 0 and rows.loc[result.attack, "gradients"] == 1
    assert any("Images for tuning" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "gradients", "labels", "notes"),
    [
        ("dem", 10, ["dem (10 gradients)", "dem (10 gradients, spend=copies)"], 0),
        ("vmi", 19, ["vmi (19 gradients, spend=copies)"], 1),
        ("mi", 3, ["mi (3 gradients)"], 0),
    ],
)
def test_tuning_ranks_both_ways_to_spend_gradients(attack, gradients, labels, notes):
    results = rank(attack, source="vgg_small", tuning=True, gradients=gradients)
    assert [result.attack for result in results] == labels
    assert {result.cost for result in results} == {gradients}
    assert sum("The nearest" in note for note in results.notes) == notes


def test_refusals_of_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls: list[tuple[Any, dict[str, Any], str]] = [
        ("fgsm", {"preset": "large"}, "large: .*photographs, small"),
        ("fgsm", {"preset": None}, "None: .*photographs"),
        ("fgsm", {"preset": ["small"]}, "photographs, small"),
        ("mii", {}, "mii.*Did you mean"),
        ("mii", {"preset": "photographs"}, "mii.*Did you mean"),
        ("mi", {"preset": "photographs", "tuning": True}, "networks.md.*tuning"),
        (None, {}, "NoneType"),
        ([], {}, "list"),
        ({}, {}, "empty"),
        ("nowhere.card", {}, "does not exist"),
        ("pipe", {}, "is a named pipe"),
        (tmp_path, {"tuning": True}, "tuning"),
        (tmp_path, {"gradients": 10}, "gradients"),
        (attacks.mi, {"gradients": 10}, "name of an attack"),
    ]
    monkeypatch.chdir(tmp_path)
    mkfifo("pipe")
    for attack, words, sentence in calls:
        with pytest.raises(ValueError, match=sentence):
            rank(attack, **words)


@pytest.mark.slow
def test_sources_of_rank_are_those_of_the_preset():
    for source, sentence in (
        ("vgg16", "source=vgg16"),
        (7, "source=7: .*vgg_small"),
        (["vgg_small"] * 2, "vgg_small is listed more than once"),
    ):
        with pytest.raises(ValueError, match=sentence):
            rank("fgsm", source=source)  # type: ignore[arg-type]
