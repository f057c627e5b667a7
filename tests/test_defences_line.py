"""From a command to tables: defences, adaptive attackers, and adversarial images from files."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageChops

from src import load_sweep
from src.artifacts.jobs import find_jobs
from src.utils.files import sha256_of
from tests.conftest import TINY_RUN

OWN_WORDS = ("source=", "targets=", "dataset=", "n_images=", "epsilon.", "rerun=")
WORDS = [word for word in TINY_RUN if not word.startswith(OWN_WORDS)]
BOTH = ["dataset=cifar10_mini", "targets=[coarse,fine]"]
COARSE = ["source=coarse", "n_images=23", *BOTH]
JOB = [*COARSE, "attack=bim", "attack.steps=2", "variants=[uint8]", "epsilon.grid=[2,8]"]
SET = [*COARSE, "attack=bim", "epsilon.grid=[1.5,4,8]", "save_adversarial=true"]
OWN = ["attack=saved", "attack.path=set/adversarial"]
FOREIGN = ["attack=saved", "attack.path=set/adversarial/8"]  # the same images without the record
FOREIGN += ["attack.clean=set/adversarial/0", "attack.labels=set/adversarial/images.csv"]
WEIGHTS = "model.coarse.weights"
COUNTS = ["gradients", "forwards"]  # which a set does not keep
slow = pytest.mark.slow


def own_attack(model, images, labels, eps):
    return images + eps * model(images)[0, 0].sign()


@pytest.fixture(scope="module")
def folder(new_workspace) -> Path:
    return new_workspace()


@pytest.fixture(scope="module")
def run(folder, run_tiny):
    """A function that runs a job in a folder there; what is stored is used."""

    def call(name: str, *words: str) -> Path:
        assert run_tiny(folder, *words, f"hydra.run.dir={name}", words=WORDS) == 0
        return folder / name

    return call


@pytest.fixture(scope="module")
def made(run):
    """The folder of a job with two defences, one of them randomised and drawn three times."""
    defences = "defences=[none,jpeg,random_resize_pad]"
    return run("made", *JOB, defences, "defence.random_resize_pad.repeats=3")


@pytest.fixture(scope="module")
def saved_set(run):
    """The folder of a job that saved its images."""
    return run("set", *SET)


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def cells(folder: Path) -> pd.DataFrame:
    rates = pd.read_csv(folder / "rates.csv").query("variant == 'float32'")
    return rates.set_index(["protocol", "target", "defence", "eps_255"])


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


def test_an_adaptive_attacker_is_the_white_box_behind_its_defence(run):
    words = [*JOB, "defences=[none,median]"]
    folder = run("median", *words, "source_defence=median")
    adaptive = cells(folder).query("source == 'coarse@median'")
    found = predictions(folder)
    clean = found.query("target == 'coarse' and defence == 'median' and eps_255 == 0")
    right = (clean["label"] == clean["predicted"]).sum()
    assert adaptive.loc["source_correct", "fine", "none", 8.0]["denominator"] == right
    place = ("all", "coarse", "median", 8.0)
    plain = cells(run("plain", *words)).loc[place]["still_correct"]
    assert adaptive.loc[place]["still_correct"] <= plain


@slow
def test_a_saved_set_of_an_adaptive_attacker_is_told_apart(run):
    behind = "source_defence=jpeg"
    first = predictions(run("adaptive", *JOB, behind, "save_adversarial=true"))
    saved = [*BOTH, "attack=saved", "attack.path=adaptive/adversarial"]
    again = run("again", *saved, "source=coarse", behind, "defences=[none,jpeg]")
    keys = ["target", "defence", "eps_255", "index"]
    both = first.merge(predictions(again), on=keys, suffixes=("", "_again"))
    both = both.query("eps_255 == 8")
    assert len(both) and (both["predicted"] == both["predicted_again"]).all()
    assert set(load_sweep(again)["source"]) == {"coarse@jpeg"}
    assert set(load_sweep(run("alone", *saved))["target"]) == {"fine", "coarse"}


def test_abstentions_leave_the_rates_and_raise_an_alarm(run):
    words = ["defence.smoothing.copies=12", "defence.smoothing.sigma=1.0", "report=default"]
    folder = run("smooth", *JOB, "defences=[none,smoothing]", *words)
    its = predictions(folder)
    its = its.query("target == 'fine' and defence == 'smoothing' and eps_255 == 8")
    abstained = its["predicted"] == -1
    row = cells(folder).loc["all", "fine", "smoothing", 8.0]
    assert 0 < abstained.sum() == row["abstained"] == 23 - row["denominator"]
    assert row["still_correct"] == (its["predicted"] == its["label"]).sum()
    alarms = json.loads((folder / "alarms.json").read_text())
    assert any(each["name"] == "abstentions" for each in alarms)


def test_a_saved_set_equals_the_job_that_saved_it(saved_set, run, capsys):
    shown = predictions(run("shown", *OWN, *BOTH, "source=coarse"))
    assert "All 23 saved images are within their budgets." in capsys.readouterr().out
    assert shown["gradients"].isna().sum() == (shown["eps_255"] > 0).sum()
    own = predictions(saved_set)
    pd.testing.assert_frame_equal(shown.drop(columns=COUNTS), own.drop(columns=COUNTS))
    few = run("few", *OWN, "targets=[fine]", "n_images=7")  # without its source
    assert "protocol: target_correct" in capsys.readouterr().out
    assert predictions(few)["index"].nunique() == 7


@slow
def test_a_set_that_claims_to_be_of_other_images_leaves_their_rows_alone(saved_set, run, tmp_path):
    forged = Path(shutil.copytree(saved_set / "adversarial", tmp_path / "forged"))
    record = json.loads((forged / "record.json").read_text())
    for path in (forged / "0").iterdir():
        ImageChops.invert(Image.open(path)).save(path)
        record["files"][f"0/{path.name}"] = sha256_of(path)
    (forged / "record.json").write_text(json.dumps(record))
    victim = "cache.dir=victim"
    run("taken", victim, "attack=saved", f"attack.path={forged}", *BOTH, "source=coarse")
    pd.testing.assert_frame_equal(predictions(run("honest", victim, *SET)), predictions(saved_set))


def test_ensembles_and_targets_are_those_of_the_set(run):
    words = ["source=[coarse,fine]", *BOTH]
    job = ["attack=bim", "ensemble=probabilities", "n_images=23", "attack.target_label=next"]
    job += ["epsilon.grid=[8]", "save_adversarial=true"]
    first = predictions(run("both", *words, *job))
    again = predictions(run("both_again", *words, "attack=saved", "attack.path=both/adversarial"))
    pd.testing.assert_frame_equal(again.drop(columns=COUNTS), first.drop(columns=COUNTS))
    assert again["target_label"].notna().sum() == 2 * 23


@pytest.mark.usefixtures("saved_set")
def test_a_foreign_set_leaves_to_the_settings_what_it_does_not_say(run):
    words = [*FOREIGN, "attack.eps_255=8", "report=default"]
    words += ["targets=[fine]", "source=[coarse,fine]", "ensemble=loss", "dataset.num_classes=10"]
    words += ["attack.origin.source=coarse+fine", "attack.origin.dataset=x"]
    (job,) = find_jobs([run("x", *words, "dataset.class_names=[a,b,c,d,e,f,g,h,i,j]")])
    record = job.record
    assert (record.source, record.protocol) == ("coarse+fine", "joint")
    assert record.config["ensemble"] == "loss"
    assert (record.dataset, "".join(record.class_names)) == ("x", "abcdefghij")


REFUSED = [  # words, and what is said
    (JOB, ["defences=[jpg]"], "'jpg'. Did you mean jpeg?"),
    (JOB, ["source_defence=jpg"], "Did you mean jpeg?"),
    (JOB, ["defences=[jpeg,jpeg]"], "listed more than once"),
    (JOB, ["protocol=common"], "defences=[none,jpeg]"),
    (JOB, ["defences=[jpeg]", "defence.jpeg.quality=0"], "quality"),
    (JOB, ["defences=[jpeg]", "defence.jpeg.strength=1"], "strength"),
    (JOB, ["defences=[jpeg]", "defence.jpeg.repeats=0"], "defence.jpeg.repeats"),
    (JOB, ["source_draws=2"], "source_draws=2 needs "),
    (OWN, ["model.fine.weights=null"], "model fine has no weights"),
    (["attack=saved"], ["attack.path=gone"], "gone"),
    (OWN, ["protocol=joint"], "source=NAME"),
    (OWN, ["source=fine"], "crafted on coarse"),
    (OWN, ["attack.eps_255=8"], "eps_255"),
    (OWN, ["epsilon.reference=5"], "1.5, 4, 8"),
    (FOREIGN, ["attack.eps_255=0.0314"], "Did you mean 8?"),
    (FOREIGN, [], "attack.eps_255"),
    (FOREIGN, ["attack.eps_255=8"], "classes"),
]
REFUSED_AT_WORK = [
    (JOB, ["source_defence=jpeg", "source_draws=3"], "source_draws=3: source_defence=jpeg"),
    # it cannot average over draws
    (COARSE, ["attack=own", "source_defence=random_resize_pad"], "random_resize_pad"),
    (
        OWN,
        ["source=coarse", "model.coarse.weights=changed.safetensors"],
        "model.coarse.weights=PATH",
    ),
]


@pytest.mark.usefixtures("saved_set")
def test_refusals(folder, run_tiny, tiny_weights, capfd):
    own = folder / "conf" / "attack" / "own.yaml"
    own.write_text("_target_: tests.test_defences_line.own_attack\n")
    content = bytearray((tiny_weights / "coarse.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "changed.safetensors").write_bytes(content)
    for code, table in ((2, REFUSED), (1, REFUSED_AT_WORK)):
        for first, more, sentence in table:
            words = [*first, *more, "hydra.run.dir=refused"]
            words += [] if {*COARSE} & {*first} else ["targets=[coarse,fine]"]
            assert run_tiny(folder, *words, words=WORDS) == code
            text = "".join(capfd.readouterr()).replace("\n", "")
            assert sentence in text and "Traceback" not in text, words
