"""From a sweep's tables to its report, and from copies of the tables alone."""

import importlib
import json
import re
import shutil
import sys
from html import unescape
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

SWEEP = ["-m", "attack=fgsm,bim", "source=coarse,fine", "n_images=40", "report=default"]
ENOUGH = ["n_images=400", "protocol=all"]  # for intervals that are not too wide
FEW = "report.pairs=3"  # the pictures of a pair take seconds


@pytest.fixture
def report(workspace, monkeypatch):
    """A function that runs `python -m src.report` here and returns its exit code."""
    return program("src.report.__main__", [], monkeypatch)


@pytest.fixture
def explore(workspace, monkeypatch, tiny_run):
    """A function that runs `python -m src.explore` here and returns its exit code."""
    kept = ("--config-dir", "model=", "training.", "trainer", "dataset", "n_images")
    words = [word for word in tiny_run if word.startswith(kept)]
    return program("src.explore", [*words, "dataset.n_train=200"], monkeypatch)


def program(module: str, words: list[str], monkeypatch):
    def run(*arguments: str) -> int:
        main = importlib.import_module(module).main
        every = sorted([*words, *arguments], key=lambda word: not word.startswith("-"))
        monkeypatch.setattr(sys, "argv", [module, *every])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def page(folder: Path) -> str:
    """Return a page's text, without the still charts: their ids count on in a process."""
    text = (folder / "report.html").read_text()
    return unescape(re.sub(r"data:image/svg[^\"]*", "", text))


def client(workspace: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlruns/mlflow.db")


def sweep_runs(workspace: Path) -> list:
    store = client(workspace)
    experiment = store.get_experiment_by_name("photos-sweeps").experiment_id
    return list(store.search_runs([experiment], "tags.kind = 'sweep'"))


def test_a_sweep_ends_with_its_report(command_line, report, workspace, capsys):
    words = [FEW, *ENOUGH, "report.figures=true", "diagnostics=full", "hydra.sweep.dir=out"]
    assert command_line(*SWEEP, *words) == 0
    folder = workspace / "out"
    assert "report: " in capsys.readouterr().out
    text = page(folder)
    answer = pd.read_csv(folder / "figures" / "answer.csv").query("protocol == 'all'")
    answer = answer[answer["eps_255"] == 8].set_index(["attack", "source", "target"])
    for attack in ("fgsm", "bim"):
        cells = pd.read_csv(folder / f"matrix-{attack}.csv").set_index("source")
        for source in ("coarse", "fine"):
            for target in ("coarse", "fine"):
                k, n = answer.loc[(attack, source, target), ["k", "n"]].astype(int)
                assert cells.loc[source, target].startswith(f"{k} / {n} = ")
    assert "Are confident images harder" in text
    figures = {path.name for path in (folder / "figures").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in figures if name.endswith(".png")}
    assert {"spectra", "filtered", "low-passed", "similarity", "class-counts"} <= stems
    assert "those of 3 of 8 pairs" in text and "Examples: bim from" in text
    for ending in ("svg", "csv", "vl.json"):
        assert {f"{stem}.{ending}" for stem in stems} <= figures

    (run,) = sweep_runs(workspace)
    store = client(workspace)
    assert "report.html" in {file.path for file in store.list_artifacts(run.info.run_id)}
    logged = {Path(f.path).name for f in store.list_artifacts(run.info.run_id, "figures")}
    assert logged == figures
    jobs = store.search_runs([run.info.experiment_id], "tags.kind = 'job'")
    files = {file.path for file in store.list_artifacts(jobs[0].info.run_id)}
    assert {"flips.parquet", "spectra.parquet", "filtered.parquet", "similarity.parquet"} <= files

    # Tables that were copied elsewhere make the same report: no model, no images, no rerun.
    bare = workspace / "bare"
    for path in folder.rglob("*.parquet"):
        (bare / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, bare / path.parent.name)
    shutil.rmtree(workspace / "cache")
    assert report("folder=bare", "tracking=none", "out=again", FEW, "report.figures=true") == 0
    for name in ("answer.csv", "spectra.csv", "areas.csv", "compared-sources.csv"):
        again, first = workspace / "again" / "figures" / name, folder / "figures" / name
        assert again.read_text() == first.read_text()


def test_sweeps_are_found_again(command_line, report, workspace, capsys):
    quick = ["report=none", *ENOUGH]
    assert command_line("attack=fgsm", "hydra.run.dir=outputs/first", *quick) == 0
    assert command_line("attack=bim", "hydra.run.dir=outputs/second", *quick) == 0
    second, first = (run.info.run_id for run in sweep_runs(workspace))
    text = {}
    for number, words in enumerate(
        ([], ["tracking=none"], [f"sweep={first}"], ["sweep=first", "tracking=none"])
    ):
        assert report(*words, f"out=report{number}", "report.pairs=0") == 0
        text[number] = page(workspace / f"report{number}")
    assert "attack=bim" in text[0] and text[0] == text[1]  # the newest
    assert "attack=fgsm" in text[2] and "attack=bim" not in text[2]
    assert text[2] == text[3]
    assert report("sweep=[first,second]", "out=both", "report.pairs=0", "report.figures=true") == 0
    both = pd.read_csv(workspace / "both" / "figures" / "answer.csv")
    assert set(both["attack"]) == {"fgsm", "bim"}
    figures = {path.name for path in (workspace / "both" / "figures").glob("compared-*.csv")}
    assert figures == {"compared-attacks.csv"}  # the same images under two attacks

    shutil.rmtree(workspace / "outputs")  # what the store kept is enough
    assert report(f"sweep={second}", "out=kept", "report.pairs=0", "report.figures=true") == 0
    kept = pd.read_csv(workspace / "kept" / "figures" / "answer.csv")
    assert kept["attack"].unique().tolist() == ["bim"]
    stored = client(workspace).list_artifacts(second)
    assert "report.html" in {file.path for file in stored}
    capsys.readouterr()


def test_a_stored_set_without_clean_images_has_a_report(command_line, workspace, monkeypatch):
    quiet = ["tracking=none", "report=none", "hydra.run.dir=made", "save_adversarial=true"]
    assert command_line("attack=fgsm", *quiet) == 0
    for file in (workspace / "made" / "adversarial").glob("*.npy"):
        images = file.read_bytes()
        (workspace / "advs.npy").write_bytes(images)  # the last one will do
    labels = pq.read_table(workspace / "made" / "predictions.parquet").to_pandas()
    labels = labels.drop_duplicates("index").sort_values("index")["label"].to_numpy()
    np.save(workspace / "labels.npy", labels)
    words = [
        "--config-dir=conf",
        "model=[coarse,fine]",
        "trainer=cpu",
        "trainer.progress_bar=false",
    ]
    words += ["dataset=photos", "dataset.n_train=200", "training.epochs=2"]
    run = program("src.score", [*words, "training.batch_size=50"], monkeypatch)
    given = ["set=advs.npy", "labels=labels.npy", "eps_255=8", "origin.num_classes=10"]
    assert run(*given, "targets=[coarse,fine]", "tracking=none", "hydra.run.dir=shown") == 0
    text = page(workspace / "shown")
    assert "clean predictions" in text and "1 of 1 jobs have none" in text
    assert "Are confident images harder" not in text


def test_other_data_and_other_weights_are_never_compared(command_line, report, workspace):
    quick = ["attack=fgsm", "report=none", "tracking=none"]
    for name, words in {
        "one": [],
        "less": ["n_images=20", "epsilon.grid=[0,4]"],
        "retrained": ["training.epochs=1"],
    }.items():
        assert command_line(*quick, *words, f"hydra.run.dir=outputs/{name}") == 0
    names = "sweep=[one,less,retrained]"
    assert report(names, "tracking=none", "report.pairs=0", "report.figures=true", "out=all") == 0
    figures = workspace / "all" / "figures"
    rates = pd.read_csv(figures / "answer.csv")
    assert not rates.duplicated(["attack", "protocol", "source", "target", "eps_255"]).any()
    tests = [pd.read_csv(path) for path in figures.glob("compared-*.csv")]
    assert all((frame["n"] <= 23).all() for frame in tests)


def test_attacks_are_compared_within_one_norm(command_line, workspace):
    words = ["attack=fgsm,fgsm_l2", "report=default", "tracking=none", "report.pairs=2"]
    assert (
        command_line(
            "-m", *words, "report.examples=0", "report.figures=true", "hydra.sweep.dir=out"
        )
        == 0
    )
    figures = workspace / "out" / "figures"
    assert (figures / "answer.csv").exists() and not list(figures.glob("compared-*"))
    for number, attack in enumerate(("fgsm", "fgsm_l2")):
        told = attack == "fgsm"  # what 8 bits hold
        flips = pd.read_csv(workspace / "out" / f"{number}-{attack}-coarse" / "first-flips.csv")
        assert flips["below_8_bits"].notna().all() == told


def test_the_report_says_what_was_not_computed(command_line, workspace):
    assert command_line("attack=fgsm", "report=default", "tracking=none", "report.pairs=1") == 0
    (folder,) = (workspace / "outputs").iterdir()
    text = page(folder)
    assert (
        "power spectra" in text and "not computed by 1 of 1 jobs; diagnostics.spectra=true" in text
    )
    assert "those of 1 of 2 pairs" in text
    assert not (folder / "figures").exists()  # nobody asked for them


def test_clean_images_are_explored_without_an_attack(explore, workspace, capsys):
    assert explore("source=[coarse,fine]", "tracking=none", "report.figures=true") == 0
    printed = capsys.readouterr().out
    (folder,) = (workspace / "outputs").iterdir()
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    assert set(table["target"]) == {"coarse", "fine"} and (table["eps_255"] == 0).all()
    right = table[table["target"] == "fine"]
    k, n = int((right["label"] == right["predicted"]).sum()), len(right)
    assert f"{k} / {n} = {k / n:.2%}" in printed and f"{k} / {n} = {k / n:.2%}" in page(folder)
    figures = {path.name for path in (folder / "figures").glob("*.png")}
    assert {"class-counts.png", "class-confidence.png"} <= figures


@pytest.mark.usefixtures("coarse_guesses")
def test_exploring_names_models_that_guess(explore, workspace, capsys):
    assert explore("source=coarse", "tracking=none", "report=none") == 0
    printed = capsys.readouterr().out
    (folder,) = (workspace / "outputs").iterdir()
    (named,) = json.loads((folder / "alarms.json").read_text())
    assert named["finding"].startswith("coarse: correct on")
    assert f"clean_at_chance: {named['finding']}" in printed


def test_exploring_is_tracked_and_swept(explore, workspace):
    assert explore("-m", "source=coarse,fine", "report=none") == 0
    (run,) = sweep_runs(workspace)
    assert run.info.status == "FINISHED"


def test_a_report_that_fails_costs_no_results(command_line, workspace, capsys, monkeypatch):
    def broken(*arguments):
        raise ValueError("the ink is out.")

    monkeypatch.setattr("src.report.command.build_report", broken)
    assert command_line("attack=fgsm", "report=default", "tracking=none") == 1
    printed = capsys.readouterr().out
    assert "No report: the ink is out." in printed and "Traceback" not in printed
    (folder,) = (workspace / "outputs").iterdir()
    assert (folder / "predictions.parquet").exists() and f"folder=outputs/{folder.name}" in printed


REFUSED = [
    ([], "there is no sweep yet"),
    (["report.figures=some"], "report.figures=some is not one of True, False"),
    (["folder=gone"], "gone is not a folder"),
    (["sweep=gone"], "sweep=gone is neither"),
    (["folder=conf"], "holds no predictions of this program"),
    (["folder=strange"], "cannot be read as a parquet file"),
    (["folder=conf", "sweep=x"], "sweep and folder are both given"),
    (["report.pairs=-1"], "report.pairs must be a whole number"),
    (["report.budgets=4"], "report.budgets=4 is not a list"),
    (["tracking.uri=nonsense://x"], "cannot be used"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(w) for w, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(report, workspace, capfd, words, message):
    (workspace / "strange").mkdir()
    (workspace / "strange" / "x.parquet").write_text("no table")
    assert report(*words) == 2
    out, err = capfd.readouterr()
    assert message in err.replace("\n", "") and "Traceback" not in out + err


def test_asking_for_a_report_creates_no_store(report, workspace, capfd):
    assert report() == 2
    assert "there is no sweep yet" in capfd.readouterr().err
    assert not (workspace / "mlruns").exists()


def test_an_interrupted_report_says_what_is_kept(report, workspace, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("src.report.command.find_jobs", interrupt)
    assert report("folder=.") == 130
    assert "jobs' files are untouched" in capsys.readouterr().out
