"""Targets behind defences, and adaptive attackers, from a command to tables and pages."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src import load_classifier, load_sweep, rates
from src.data import load_dataset
from src.images.attacker import Attacker
from tests.conftest import TINY_RUN, replaced, run_words


def own_attack(model, images, labels, eps):
    return images + eps * model(images)[0, 0].sign()


JOB = ["attack=bim", "attack.steps=2", "variants=[uint8]"]
DEFENCES = ["defences=[none,jpeg,random_resize_pad]", "defence.random_resize_pad.repeats=3"]
SAVING = ["save_adversarial=true", "epsilon.grid=[8]"]
SAVED = ["attack=saved", "variants=[]", "epsilon.grid=[8]"]
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def line(new_workspace, run_tiny):
    """A folder, and a function that runs jobs in folders there; what is stored is used."""
    root = new_workspace()
    stored = replaced(TINY_RUN, "rerun=false")

    def run(name: str, *words: str) -> Path:
        assert run_tiny(root, *words, f"hydra.run.dir={name}", words=stored) == 0
        return root / name

    return root, run


@pytest.fixture
def refused(line, run_tiny, capsys):
    """A function that runs a job which must fail, and returns what it prints."""

    def run(*words: str, code: int = 2) -> str:
        assert run_tiny(line[0], *words, "hydra.run.dir=refused") == code
        return "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def made(line):
    """The folder of a job with two defences, one of them randomised and drawn three times."""
    return line[1]("made", *JOB, *DEFENCES)


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def cells(folder: Path) -> pd.DataFrame:
    rates = pd.read_csv(folder / "rates.csv").query("variant == 'float32'")
    return rates.set_index(["protocol", "target", "defence", "eps_255"])


@slow
def test_every_target_is_evaluated_behind_each_defence_on_the_same_images(line, made):
    found = predictions(made)
    counts = found.groupby(["target", "defence", "eps_255"]).size()
    assert (counts == 23).all() and len(counts) == 2 * 3 * 3
    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    its = found.query("target == 'fine' and defence == 'jpeg' and eps_255 == 0").set_index("index")
    place = {number: row for row, number in enumerate(images.indices.tolist())}
    data = ["dataset=cifar10_mini", "n_images=23"]
    fine = load_classifier("fine", *data, config_dir=line[0] / "conf")
    for index, row in its.iterrows():
        pixels = images[place[index]].images.permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        shown = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
        assert int(fine(shown).argmax()) == row["predicted"]


@slow
def test_defences_leave_the_other_rows_as_they_are_and_cost_no_attack(line, made, monkeypatch):
    before = predictions(made).query("defence == 'none'").reset_index(drop=True)
    monkeypatch.setattr(Attacker, "_attack_batch", lambda *given: pytest.fail("attacked again"))
    after = predictions(line[1]("added", *JOB, "defences=[none,bit_depth,median]"))
    assert set(after["defence"]) == {"none", "bit_depth", "median"}
    pd.testing.assert_frame_equal(after.query("defence == 'none'").reset_index(drop=True), before)


def test_rates_count_what_a_plain_count_does(made):
    found, rates = predictions(made), cells(made)
    right = found.assign(right=found["label"] == found["predicted"])
    wide = right.pivot(index="index", columns=["target", "defence", "eps_255"], values="right")
    source = wide["coarse", "none", 0.0]
    for target in ("coarse", "fine"):
        every = wide[target].xs(0.0, axis=1, level="eps_255").all(axis=1)
        for defence in ("none", "jpeg", "random_resize_pad"):
            clean, attacked = wide[target, defence, 0.0], wide[target, defence, 8.0]
            for protocol, counted in (
                ("joint", source & clean),
                ("common", source & every),
                ("target_correct", clean),
            ):
                row = rates.loc[protocol, target, defence, 8.0]
                assert row["denominator"] == counted.sum() > 0
                assert row["still_correct"] == (attacked & counted).sum()
                assert row["clean_accuracy"] == pytest.approx(clean.mean())


def test_the_majority_of_draws_decides_and_their_share_is_a_column(made):
    found = predictions(made).query("defence == 'random_resize_pad'")
    assert (found["draws"] == 3).all()
    right = found["label"] == found["predicted"]
    assert found.loc[right, "draws_correct"].ge(1).all()
    assert found.loc[~right, "draws_correct"].le(1).all()  # one of three draws, or a tie
    assert found["draws_correct"].isin([1, 2]).any()  # draws differ
    every = cells(made).loc["all", "fine", "random_resize_pad", 8.0]
    share = found.query("target == 'fine' and eps_255 == 8")["draws_correct"].mean() / 3
    assert every["draws_correct"] == pytest.approx(share)


def test_the_frame_of_a_sweep_gives_the_same_rates(made):
    frame = load_sweep(made).predictions.query("variant == 'float32'")
    found = rates(frame, "coarse", ["fine"], "common").query("eps_255 == 8")
    assert list(found["defence"]) == ["none", "jpeg", "random_resize_pad"]
    again = rates(frame, targets=["fine"], protocol="common").query("eps_255 == 8")
    pd.testing.assert_frame_equal(again[[*found]], found)
    for row in found.itertuples():
        expected = cells(made).loc["common", "fine", row.defence, 8.0]
        assert row.still_correct == expected["still_correct"]
        assert row.denominator == expected["denominator"]


def test_an_adaptive_attacker_is_the_white_box_behind_its_defence(line):
    words = [*JOB, "defences=[none,median]"]
    folder = line[1]("median", *words, "source_defence=median")
    adaptive = cells(folder).query("source == 'coarse@median'")
    found = predictions(folder)
    clean = found.query("target == 'coarse' and defence == 'median' and eps_255 == 0")
    right = (clean["label"] == clean["predicted"]).sum()
    assert adaptive.loc["source_correct", "fine", "none", 8.0]["denominator"] == right
    place = ("all", "coarse", "median", 8.0)
    plain = cells(line[1]("plain", *words)).loc[place]["still_correct"]
    assert adaptive.loc[place]["still_correct"] <= plain


@slow
def test_clean_images_and_saved_sets_take_defences(line):
    folder, run = line
    behind = "defences=[none,jpeg]"
    clean = run("clean", "attack=none", behind, "source=null", "protocol=null")
    found = predictions(clean)
    assert (found.groupby(["target", "defence"]).size() == 23).all() and len(found) == 4 * 23
    words = [f"folder={clean}", f"out={folder / 'page'}", f"cache.dir={folder / 'cache'}"]
    assert run_words(folder, *words, module="src.report.__main__") == 0
    assert "fine@jpeg" in (folder / "page" / "report.html").read_text()
    run("saving", *JOB, *SAVING)
    saved = run("saved", *SAVED, "attack.path=saving/adversarial", behind)
    assert set(predictions(saved)["defence"]) == {"none", "jpeg"}


@slow
def test_a_saved_set_of_an_adaptive_attacker_is_told_apart(line, refused):
    behind = "source_defence=jpeg"
    saved = [*SAVED, "attack.path=adaptive/adversarial"]
    first = predictions(line[1]("adaptive", *JOB, behind, *SAVING))
    again = line[1]("again", *saved, behind, "defences=[none,jpeg]")
    keys = ["target", "defence", "eps_255", "index"]
    both = first.merge(predictions(again), on=keys, suffixes=("", "_again"))
    both = both.query("eps_255 == 8")
    assert len(both) and (both["predicted"] == both["predicted_again"]).all()
    assert set(load_sweep(again)["source"]) == {"coarse@jpeg"}
    assert "crafted on coarse with source_defence=jpeg" in refused(*saved)
    alone = line[1]("alone", *saved, "source=null", "protocol=null")
    assert set(load_sweep(alone)["target"]) == {"fine", "coarse"}


def test_refusals(line, refused):
    for words, sentence in (
        (["defences=[jpg]"], "'jpg'. Did you mean jpeg?"),
        (["source_defence=jpg"], "Did you mean jpeg?"),
        (["defences=[jpeg,jpeg]"], "listed more than once"),
        (["protocol=common"], "defences=[none,jpeg]"),
        (["defences=[jpeg]", "defence.jpeg.quality=0"], "quality"),
        (["defences=[jpeg]", "defence.jpeg.strength=1"], "strength"),
        (["defences=[jpeg]", "defence.jpeg.repeats=0"], "defence.jpeg.repeats"),
        (["source_draws=2"], "source_draws=2 needs "),
    ):
        assert sentence in refused(*JOB, *words), words
    words = ["source_defence=jpeg", "source_draws=3"]
    assert "source_draws=3: source_defence=jpeg" in refused(*JOB, *words, code=1)
    own = line[0] / "conf" / "attack" / "own.yaml"
    own.write_text("_target_: tests.test_defences_line.own_attack\n")
    words = ["attack=own", "source_defence=random_resize_pad"]  # it cannot average over draws
    assert "random_resize_pad" in refused(*words, code=1)


def test_abstentions_leave_the_rates_and_raise_an_alarm(line):
    words = ["defence.smoothing.copies=12", "defence.smoothing.sigma=1.0"]
    folder = line[1]("smooth", *JOB, "defences=[none,smoothing]", *words)
    its = predictions(folder)
    its = its.query("target == 'fine' and defence == 'smoothing' and eps_255 == 8")
    abstained = its["predicted"] == -1
    row = cells(folder).loc["all", "fine", "smoothing", 8.0]
    assert 0 < abstained.sum() == row["abstained"] == 23 - row["denominator"]
    assert row["still_correct"] == (its["predicted"] == its["label"]).sum()
    alarms = json.loads((folder / "alarms.json").read_text())
    assert any(each["name"] == "abstentions" for each in alarms)
    words = ["folder=smooth", "out=page"]
    assert run_words(line[0], *words, module="src.report.__main__") == 0
