"""Targets behind defences, and adaptive attackers, from a command to tables and pages."""

import io
import json
import re
from functools import partial
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


@pytest.fixture(scope="module")
def line(new_workspace, run_tiny):
    """A folder, and a function that runs jobs there; what is stored is used."""
    folder = new_workspace()
    return folder, partial(run_tiny, folder, words=replaced(TINY_RUN, "rerun=false"))


@pytest.fixture(scope="module")
def made(line):
    """The folder of a job with two defences, one of them randomised and drawn three times."""
    folder, run = line
    assert run(*JOB, *DEFENCES, "hydra.run.dir=made") == 0
    return folder / "made"


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def cells(folder: Path) -> pd.DataFrame:
    rates = pd.read_csv(folder / "rates.csv").query("variant == 'float32'")
    return rates.set_index(["protocol", "target", "defence", "eps_255"])


@pytest.mark.slow
def test_every_target_is_evaluated_behind_each_defence_on_the_same_images(line, made):
    found = predictions(made)
    counts = found.groupby(["target", "defence", "eps_255"]).size()
    assert (counts == 23).all() and len(counts) == 2 * 3 * 3
    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    its = found.query("target == 'fine' and defence == 'jpeg' and eps_255 == 0").set_index("index")
    place = {number: row for row, number in enumerate(images.indices.tolist())}
    fine = load_classifier("fine", *DATA, config_dir=line[0] / "conf")
    for index, row in its.iterrows():
        pixels = images[place[index]].images.permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        shown = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
        assert int(fine(shown).argmax()) == row["predicted"]


DATA = ["dataset=cifar10_mini", "n_images=23"]


@pytest.mark.slow
def test_defences_leave_the_other_rows_as_they_are_and_cost_no_attack(line, made, monkeypatch):
    folder, run = line
    before = predictions(made).query("defence == 'none'").reset_index(drop=True)
    monkeypatch.setattr(Attacker, "_attack_batch", lambda *given: pytest.fail("attacked again"))
    words = ["defences=[none,bit_depth,median]", "hydra.run.dir=added"]
    assert run(*JOB, *words) == 0
    after = predictions(folder / "added")
    assert set(after["defence"]) == {"none", "bit_depth", "median"}
    pd.testing.assert_frame_equal(after.query("defence == 'none'").reset_index(drop=True), before)


def test_rates_count_what_a_plain_count_does(made):
    found, rates = predictions(made), cells(made)
    right = found.assign(right=found["label"] == found["predicted"]).set_index(
        ["index", "target", "defence", "eps_255"]
    )["right"]
    wide = right.unstack(["target", "defence", "eps_255"])
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


@pytest.mark.slow
def test_batches_and_processes_change_nothing(line, made):
    folder, run = line
    words = ["rerun=true", "cache.dir=other", "trainer.batch_size=4", "hydra.run.dir=small"]
    assert run(*JOB, *DEFENCES, *words) == 0
    keys = ["target", "defence", "eps_255", "index"]
    one, other = (
        predictions(each).sort_values(keys).set_index(keys) for each in (made, folder / "small")
    )
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)


def test_the_frame_of_a_sweep_gives_the_same_rates(made):
    frame = load_sweep(made).predictions.query("variant == 'float32'")
    assert set(frame["target"]) == {"coarse", "fine"}
    found = rates(frame, "coarse", ["fine"], "common").query("eps_255 == 8")
    assert list(found["defence"]) == ["none", "jpeg", "random_resize_pad"]
    pd.testing.assert_frame_equal(
        rates(frame, targets=["fine"], protocol="common").query("eps_255 == 8")[[*found]], found
    )
    for row in found.itertuples():
        expected = cells(made).loc["common", "fine", row.defence, 8.0]
        assert (row.still_correct, row.denominator) == tuple(
            expected[["still_correct", "denominator"]]
        )


def test_an_adaptive_attacker_is_the_white_box_behind_its_defence(line):
    folder, run = line
    words = ["source_defence=median", "defences=[none,median]", "hydra.run.dir=adaptive"]
    assert run(*JOB, *words) == 0
    adaptive = cells(folder / "adaptive").query("source == 'coarse@median'")
    found = predictions(folder / "adaptive")
    clean = found.query("target == 'coarse' and defence == 'median' and eps_255 == 0")
    right = (clean["label"] == clean["predicted"]).sum()
    assert adaptive.loc["source_correct", "fine", "none", 8.0]["denominator"] == right
    assert run(*JOB, "defences=[none,median]", "hydra.run.dir=plain") == 0
    place = ("all", "coarse", "median", 8.0)
    plain = cells(folder / "plain").loc[place]["still_correct"]
    assert adaptive.loc[place]["still_correct"] <= plain


@pytest.mark.slow
def test_sources_behind_defences_stand_in_one_matrix(line, capsys):
    folder, run = line
    words = ["source_defence=none,jpeg", "defences=[none,jpeg]", "hydra.sweep.dir=both"]
    assert run("-m", *JOB, *words) == 0
    printed = capsys.readouterr().out
    matrix = printed.rpartition("Still correct")[2]
    sources = re.findall(r"^(clean|coarse\S*) +[*+]?\d", matrix, re.M)
    assert list(dict.fromkeys(sources)) == ["clean", "coarse", "coarse@jpeg"]
    assert "* white box" in printed and "+ own" in printed
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    behind = [line for line in lines if re.match(r"(none|jpeg) (none|jpeg) \d", line)]
    assert len({*behind}) == 4  # plain and adaptive attackers are not averaged
    counts = cells(next((folder / "both").glob("1-*"))).loc["joint", "coarse", "jpeg", 8.0]
    itself = f"{counts['still_correct']} / {counts['denominator']} = "
    (adaptive,) = {line for line in behind if line.startswith("jpeg jpeg")}
    assert itself in adaptive  # the source behind the defence that is attacked
    assert "is not an adaptive one" not in printed


def test_a_defence_that_draws_nothing_refuses_draws(line):
    folder, run = line
    words = ["source_defence=jpeg", "source_draws=3", "hydra.run.dir=none_drawn"]
    assert run(*JOB, *words) == 1
    assert "source_draws=3: source_defence=jpeg" in (folder / "none_drawn/error.txt").read_text()


@pytest.mark.slow
def test_draws_of_a_randomised_defence_count_as_gradients(line):
    folder, run = line
    words = ["source_defence=random_resize_pad", "source_draws=3", "hydra.run.dir=drawn"]
    assert run(*JOB, *words) == 0
    assert predictions(folder / "drawn").query("eps_255 > 0")["gradients"].eq(3 * 3).all()
    # of the two budgets the first step's gradient is shared


def test_an_attack_of_ones_own_cannot_average_over_draws(line):
    folder, run = line
    (folder / "conf" / "attack" / "own.yaml").write_text(
        "_target_: tests.test_defences_line.own_attack\n"
    )
    words = ["attack=own", "source_defence=random_resize_pad", "hydra.run.dir=refused"]
    assert run(*words) == 1
    assert "random_resize_pad" in (folder / "refused" / "error.txt").read_text()


@pytest.mark.slow
def test_clean_images_and_saved_sets_take_defences(line):
    folder, run = line
    words = ["defences=[none,jpeg]", "source=null", "protocol=null"]
    assert run("attack=none", *words, "hydra.run.dir=clean") == 0
    found = predictions(folder / "clean")
    assert (found.groupby(["target", "defence"]).size() == 23).all() and len(found) == 4 * 23
    page = folder / "page"
    words = [f"folder={folder}/clean", f"out={page}", f"cache.dir={folder}/cache"]
    assert run_words(folder, *words, module="src.report.__main__") == 0
    assert "fine@jpeg" in (page / "report.html").read_text()
    saving = ["save_adversarial=true", "epsilon.grid=[8]", "hydra.run.dir=saving"]
    assert run(*JOB, *saving) == 0
    saved = ["attack=saved", "attack.path=saving/adversarial", "variants=[]", "epsilon.grid=[8]"]
    assert run(*saved, "defences=[none,jpeg]", "hydra.run.dir=saved") == 0
    assert set(predictions(folder / "saved")["defence"]) == {"none", "jpeg"}


@pytest.mark.slow
def test_a_saved_set_of_an_adaptive_attacker_is_told_apart(line, capsys):
    folder, run = line
    behind = "source_defence=jpeg"
    saving = ["save_adversarial=true", "epsilon.grid=[8]", "hydra.run.dir=adaptive"]
    assert run(*JOB, behind, *saving) == 0
    saved = ["attack=saved", "attack.path=adaptive/adversarial", "variants=[]", "epsilon.grid=[8]"]
    assert run(*saved, behind, "defences=[none,jpeg]", "hydra.run.dir=again") == 0
    first, again = (predictions(folder / name) for name in ("adaptive", "again"))
    keys = ["target", "defence", "eps_255", "index"]
    both = first.merge(again, on=keys, suffixes=("", "_again")).query("eps_255 == 8")
    assert len(both) and (both["predicted"] == both["predicted_again"]).all()
    assert set(load_sweep(folder / "again")["source"]) == {"coarse@jpeg"}
    assert run(*saved, "hydra.run.dir=plain") == 2
    assert "crafted on coarse with source_defence=jpeg" in capsys.readouterr().err
    alone = ["source=null", "protocol=null", "hydra.run.dir=alone"]
    assert run(*saved, *alone) == 0
    assert set(load_sweep(folder / "alone")["target"]) == {"fine", "coarse"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["defences=[jpg]"], "'jpg'. Did you mean jpeg?"),
        (["source_defence=jpg"], "Did you mean jpeg?"),
        (["defences=[jpeg,jpeg]"], "listed more than once"),
        (["protocol=common"], "defences=[none,jpeg]"),
        (["defences=[jpeg]", "defence.jpeg.quality=0"], "quality"),
        (["defences=[jpeg]", "defence.jpeg.strength=1"], "strength"),
        (["defences=[jpeg]", "defence.jpeg.repeats=0"], "defence.jpeg.repeats"),
        (["source_draws=2"], "source_draws=2 needs "),
    ],
)
def test_refusals(line, capsys, words, sentence):
    assert line[1](*JOB, *words) == 2
    assert sentence in capsys.readouterr().err


def test_abstentions_leave_the_rates_and_raise_an_alarm(line):
    folder, run = line
    words = ["defences=[none,smoothing]", "defence.smoothing.copies=12", "hydra.run.dir=smooth"]
    assert run(*JOB, *words, "defence.smoothing.sigma=1.0") == 0
    found, rates = predictions(folder / "smooth"), cells(folder / "smooth")
    its = found.query("target == 'fine' and defence == 'smoothing' and eps_255 == 8")
    abstained = its["predicted"] == -1
    row = rates.loc["all", "fine", "smoothing", 8.0]
    assert 0 < abstained.sum() == row["abstained"] == 23 - row["denominator"]
    assert row["still_correct"] == (its["predicted"] == its["label"]).sum()
    alarms = json.loads((folder / "smooth" / "alarms.json").read_text())
    assert any(each["name"] == "abstentions" for each in alarms)
    words = ["folder=smooth", "out=page"]
    assert run_words(folder, *words, module="src.report.__main__") == 0
