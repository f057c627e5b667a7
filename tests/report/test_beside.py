"""A sweep beside stored attacks, with `rank`, and beside studies that others published."""

import re
from dataclasses import replace
from functools import partial
from itertools import permutations
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
from src.artifacts.card import write_card
from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import find_jobs, name_jobs
from src.artifacts.record import record_of
from src.config.compose import compose_words
from src.config.read import read_job
from src.report.beside import beside, read_preset
from src.report.named_tables import table
from src.report.page.frame import build_report
from src.report.results import results_of
from src.report.words import rank_answer
from tests.records import JOBS, jobs_of_frame, predictions_of, results_of_frame
from tests.report.conftest import make_sweep as write_sweep
from tests.report.frames import as_predictions, rows_of

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
    folder = write_sweep(place / "sweep", **SWEEP)
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
            table = job.read("predictions")
            rows = rows_of(table.to_pandas())
            table = pa.Table.from_pandas(rows, table.schema, preserve_index=False)
            counts = {"images": rows["index"].nunique(), "key": f"{name}{number}"}
            record = job.record.model_copy(update=counts | facts)
            place = Path(name, f"{number}-job")
            cards.append(FinishedJob(record, place, {"predictions": table}, raised=()))
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


def test_a_rank_says_what_its_lead_needs_and_names_no_winner_below_100_images(named, changed):
    def fooled(rows, images=300, target="vit"):
        there = (rows["target"] == target) & (rows["eps_255"] > 0)
        wrong = rows["predicted"].mask(there & (rows["predicted"] == rows["label"]), 2)
        return rows.assign(predicted=wrong.mask(there & (rows["label"] == 2), 1))[
            rows["index"] < images
        ]

    (result,) = beside(named("mi"), "made-up")
    best = next(name for name in result.own_settings["attack"] if name in NAMES)
    (result,) = beside(changed(named(best), fooled), "made-up")
    said, (lead, _, details) = str(result), rank_answer(result.own_settings, result.attack, "", 4)
    assert lead.startswith(f"{result.attack} leads on average, 1st of ")
    assert all("ithout target vit, the lead is not significant" in text for text in (said, details))
    (few,) = beside(changed(named(best), partial(fooled, images=120), "few"), "made-up")
    assert "rank 1" not in str(few)
    assert "too few to name a winner: the floor of 100 images is fixed, not a power" in str(few)


@pytest.mark.slow
def test_means_are_those_of_one_sweep_that_ran_all(named, sweep):
    (result,) = beside(named("dim"), "made-up")
    whole = predictions_of(results_of(find_jobs([sweep])))
    tuning = read_preset("made-up")[0]["tuning"]
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
    with pytest.raises(ValueError, match=r"^against=mii: .*pgd, weak\. Did you mean mi\?$"):
        beside([job], "made-up", ["mi", "mii"])


def test_targets_that_are_not_shared_are_left_out_of_all_means(named, changed):
    jobs = named("mi", ["vgg"])
    record = jobs[0].record
    models = record.config["model"] | {"vit": record.config["model"]["vit"] | {"channels": "BGR"}}
    for reason, facts in {
        "another digest of weights": {"weights": record.weights | {"vit": "other"}},
        "another preprocessing": {"config": record.config | {"model": models}},
    }.items():
        (result,) = beside(changed(jobs, **facts), "made-up")
        assert f"target vit has {reason}" in str(result)
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


def test_tables_and_figures_say_how_many_of_their_images_are_for_tuning(named, changed):
    (job,) = named("mi", ["vgg"])
    tuning = read_preset("made-up")[0]["tuning"]
    few = partial(pd.DataFrame.query, expr="index in @tuning", local_dict={"tuning": tuning})
    config = job.record.config | {"beside": "made-up"}
    for part_of, text in (
        (lambda rows: rows, "300 images 60 of them for tuning"),
        (few, "60 images all for tuning"),
    ):
        results = results_of(changed([job], part_of, config=config))
        shown = [str(results.table(name=name)) for name in ("transfer", "matrix", "ranking")]
        for name in ("curves", "matrix", "ranking", "confidence_groups"):
            shown.append(str(results.figure(name).to_dict()["title"]))
        assert all(text in " ".join(re.split(r"[',\s]+", one)) for one in shown)
    assert "tuning" not in str(results_of([job]).table())


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
    cards = [job for its in jobs.values() for job in its]
    facts = {"preset": "made-up", "preset_version": 1, "tuning": []}
    write_card(cards, tmp_path / "made-up.card", **facts)
    monkeypatch.setattr(src.config.fields, "PRESETS", tmp_path)
    (result,) = beside(jobs["mi"], "made-up", ["dim"])
    assert {*result.equal_cost["attack"]} == {"mi (mine)", "mi", "bim"} and result.cost == 100
    assert "not ranked here: dim" in str(result).partition("equal cost")[2]
    assert result.own_settings["attack"].iloc[0] == "weak"
    assert "weak has the highest mean, but used no gradient of the source." in result.notes
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
    write_card([job], workspace / "tiny.card", **facts)
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


NETWORKS = {
    **dict.fromkeys(("net", "net_seed1", "other"), "net"),
    **dict.fromkeys(("vgg", "vgg_seed1", "vgg_seed2"), "vgg"),
    "vit": "vit",
}
"""The file of `other` states `training_of: net`."""


def made_up(make_sweep, networks, attack, **facts):
    """Return random predictions of models, which are trainings of these networks."""
    names = tuple(networks)
    folder = make_sweep(models=names, attacks=(attack,), images=60, budgets=(8.0,))
    frame = predictions_of(results_of(find_jobs([folder])))
    for job in frame.attrs[JOBS]:
        job |= facts
        job["config"]["model"] = {name: {"network": {"name": networks[name]}} for name in names}
        if "other" in names:
            job["config"]["model"]["other"]["training_of"] = "net"
    return frame


def rates_of(frame):
    """Return the success rate of each pair on the images that both classify correctly."""
    rows = []
    for (source, target), its in frame.groupby(["source", "target"], observed=True):
        clean = frame[(frame["source"] == source) & (frame["eps_255"] == 0)]
        right = clean[clean["predicted"] == clean["label"]]
        images = [{*right.loc[right["target"] == name, "index"]} for name in (source, target)]
        attacked = its[(its["eps_255"] == 8) & its["index"].isin(set.intersection(*images))]
        if len(attacked):
            rows.append((source, target, (attacked["predicted"] != attacked["label"]).mean()))
    return pd.DataFrame(rows, columns=["source", "target", "rate"])


def test_another_training_is_no_target_and_networks_are_compared_over_trainings(make_sweep):
    """Of seven models three and three are trainings of one network; one of them lacks a target."""
    frame = made_up(make_sweep, NETWORKS, "mi")
    frame = frame[(frame["source"] != "net") | (frame["target"] != "vgg_seed1")]
    rates, results = rates_of(frame), results_of_frame(frame)
    differ = rates["source"].map(NETWORKS) != rates["target"].map(NETWORKS)
    mean = rates[differ].groupby("target")["rate"].mean().mean()
    assert results.rankings["mean"].iloc[0] == pytest.approx(mean)
    networks = table(results, name="sources", networks=True)
    names, trainings, _, differences = zip(*networks.texts, strict=True)
    assert dict(zip(names, trainings, strict=True)) == {"net": "3", "vgg": "3", "vit": "1"}
    tested = {"net", "vgg"} if names[0] != "vit" else set()
    rows = zip(names[1:], differences[1:], strict=True)
    assert {name for name, text in rows if text} == tested - {names[0]}
    frame.attrs[JOBS][0]["weights"]["net"] = frame.attrs[JOBS][1]["weights"]["net_seed1"] = "equal"
    with pytest.raises(ValueError, match="net and net_seed1 are the same training"):
        table(results_of_frame(frame), name="sources", networks=True)


def sweep_over_trainings(tmp_path, epochs=(1, 1, 1), channels=("RGB", "RGB", "RGB")):
    """Return a sweep over the seed of trainings, and its rates by plain counting."""
    frames, rates = [], []
    for seed in range(3):
        changed = {"overrides": (f"training.seed={seed}",), "seed": seed}
        made = partial(write_sweep, tmp_path / str(seed), full=False, **changed)
        frame = made_up(made, dict.fromkeys("abcd", "net"), "mi", seed=0)
        for job in frame.attrs[JOBS]:
            job["weights"] = {name: f"{name} {seed}" for name in "abcd"}
            job["config"]["training"] = {"seed": seed, "epochs": epochs[seed]}
            job["config"]["model"]["a"]["channels"] = channels[seed]
        frames.append(frame)
        rates.append(rates_of(frame))
    jobs = [job for frame in frames for job in jobs_of_frame(frame)]
    return results_of(name_jobs(jobs)), rates


def test_trainings_that_differ_in_more_than_the_seed_do_not_fold(tmp_path):
    for named, facts in {
        r"training\.epochs \(1, 2\)": {"epochs": (1, 1, 2)},
        r"network\.a \(": {"channels": ("RGB", "BGR", "RGB")},
    }.items():
        results, _ = sweep_over_trainings(tmp_path / named[:7], **facts)
        for name in ("transfer", "sources"):
            with pytest.raises(ValueError, match=named):
                table(results, name=name, networks=True)
    with pytest.raises(ValueError, match="networks and clean"):
        table(results, networks=True, clean=True, value="accuracy")


def test_a_sweep_over_the_seed_of_trainings_is_one_ranking_of_networks(tmp_path):
    """Networks of one seed attack each other: two networks have three pairs of trainings."""
    results, rates = sweep_over_trainings(tmp_path)
    means = pd.concat(rates).groupby(["source", "target"])["rate"].agg(["mean", "min", "max"])
    for row in rows_of(table(results, networks=True, to="csv")):
        assert row["attack"] == "mi"
        for target in "abcd":
            found = [float(row[f"{target}{end}"]) for end in ("", " low", " high")]
            assert found == pytest.approx(means.loc[(row["source"], target)].tolist())
    networks = table(results, name="sources", networks=True).data
    assert sorted(networks["source"]) == [*"abcd"] and networks["trainings"].eq(3).all()
    assert networks["p"].notna().tolist() == [False, True, True, True]


def test_rates_of_trainings_stand_beside_the_mean_of_published_ones(make_sweep):
    networks = {"resnet18": "resnet18", "resnet18_seed1": "resnet18", "vgg16": "vgg16"}
    frame = made_up(make_sweep, networks, "fgsm", values=3 * 32 * 32, dataset="cifar10")
    results = results_of_frame(frame)
    rows = rows_of(table(results, name="published", to="csv"))
    theirs = {("resnet18", "vgg16"): 27.7998, ("vgg16", "resnet18"): 55.2717}
    ours = results.rates.set_index(["source", "target", "protocol", "eps_255"])["success_rate"]
    pairs = [pair for pair in permutations(networks, 2) if networks[pair[0]] != networks[pair[1]]]
    assert sorted((row["source"], row["target"]) for row in rows) == sorted(pairs)
    for row in rows:
        pair = row["source"], row["target"]
        of_networks = networks[pair[0]], networks[pair[1]]
        assert float(row["success_percent"]) == pytest.approx(theirs[of_networks], abs=1e-3)
        assert float(row["success_rate"]) == pytest.approx(ours[(*pair, "joint", 8.0)])


PUBLIC = {
    "vgg16": "torchvision/vgg16.IMAGENET1K_V1",
    "mobilenet": "torchvision/mobilenet_v2.IMAGENET1K_V2",
    "vit": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
FOOLED = {"vgg16": 560, "mobilenet": 480, "vit": 195}
"""Of 1,000 images; TransferAttack's table has 57.9, 53.4 and 14.5 %."""
CLEAN = 750
"""Images that each target classifies correctly when clean."""


def sweep_like_theirs(*words: str, images: int = 1000) -> pd.DataFrame:
    """The frame of a sweep of MI with the settings of TransferAttack's table, and made-up rows."""
    targets = f"targets=[{','.join(PUBLIC.values())}]"
    command = ("experiment=transferattack", "attack=mi", "dataset.root=none", targets, *words)
    config = compose_words([*command, "tracking=none"])
    settings = read_job(config, config.hydra)
    facts: dict[str, Any] = dict.fromkeys(("key", "crafting", "data", "device"), "made-up")
    facts |= {"target_keys": {}, "gradients": 0, "zero_gradients": 0, "seconds": 1.0, "code": {}}
    facts |= {"weights": dict.fromkeys(settings.models, "made-up"), "images": images}
    side = settings.dataset.image_size or 0
    facts |= {"values": 3 * side * side, "class_names": ("a", "b")}
    rows: dict[str, Any] = {"attack": settings.attack.label, "source": settings.source_name}
    rows |= {"defence": "none", "norm": "linf", "protocol": settings.protocol, "label": 0}
    rows |= {"variant": "float32", "index": np.arange(images), "draws": 1, "gradients": 10.0}
    rows |= {"confidence": 0.5, "true_confidence": 0.5, "forwards": 10.0}
    parts, names = [], dict(zip(settings.targets, PUBLIC, strict=True))
    for target in (*settings.targets, settings.source_name):
        for eps in (0.0, *settings.budgets):
            wrong = FOOLED.get(names.get(target, ""), 990) if eps else images - CLEAN
            own = {"target": target, "eps_255": eps, "predicted": np.arange(images) < wrong}
            parts.append(pd.DataFrame(rows | own).astype({"predicted": int}))
    record = record_of(settings, None, **facts).model_dump(mode="json")
    return as_predictions(pd.concat(parts, ignore_index=True), [record])


def test_a_sweep_like_a_published_one_stands_beside_it():
    grid = table(results_of_frame(sweep_like_theirs()), name="published")
    cells = {key: row for row in grid.texts for key in PUBLIC if key in row[1:3][1]}
    assert {key: row[3:7] for key, row in cells.items()} == {
        "vgg16": ["16/255", "560 / 1000 = 56.00%", "57.9%", "-1.9"],
        "mobilenet": ["16/255", "480 / 1000 = 48.00%", "53.4%", "-5.4"],
        "vit": ["16/255", "195 / 1000 = 19.50%", "14.5%", "+5.0"],
    }
    assert grid.notes[0].startswith("TransferAttack: 1,000 images, all; https://github.com/Trust")


@pytest.mark.parametrize(
    "words",
    [
        ["dataset.image_size=299"],
        ["attack.steps=20"],
        ["attack.decay=0.9"],
        ["epsilon.grid=[8]", "epsilon.reference=8"],
        ["source=torchvision/resnet50.IMAGENET1K_V1"],
        ["images=999"],
    ],
)
def test_a_sweep_with_one_other_setting_is_not_comparable(words):
    images = int(words[0].partition("images=")[2] or 1000)
    frame = sweep_like_theirs(*(words if images == 1000 else []), images=images)
    with pytest.raises(ValueError, match="No published rate is comparable"):
        table(results_of_frame(frame), name="published")
