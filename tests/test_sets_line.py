"""Adversarial images from a job to files, and from files back to targets."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from src.sets import read_set

QUIET = ["tracking=none", "report=none"]
TRAIN = ["dataset=photos", "dataset.n_train=200"]


@pytest.fixture
def score(workspace, monkeypatch, tiny_run):
    """A function that runs `python -m src.score` here and returns its exit code."""

    def run(*arguments: str) -> int:
        from src.score import main

        kept = ("--config-dir", "model=", "training.", "trainer")
        words = [word for word in tiny_run if word.startswith(kept)]
        monkeypatch.setattr(sys, "argv", ["src.score", *words, *QUIET, *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def predictions(folder: Path, form: str = "") -> pd.DataFrame:
    return pd.read_parquet(folder / f"predictions{form}.parquet")


@pytest.fixture
def saved(command_line, workspace) -> Path:
    """The folder of a job that saved its images."""
    words = ["save_adversarial=true", "variants=[float32,png,jpeg75]", "attack=bim"]
    assert command_line(*QUIET, *words, "hydra.run.dir=made") == 0
    return workspace / "made"


def test_the_headline_is_what_the_files_hold(saved):
    stored = read_set(saved / "adversarial")
    assert stored.budgets_255 == (0.5, 4.0, 8.0) and stored.source == "coarse"
    for eps, images in stored.by_budget().items():
        change = np.abs(images.astype(int) - stored.clean.astype(int)).max()
        assert change == int(eps)  # 8 bits hold whole levels only, and all of them are used
    assert json.loads((saved / "adversarial-manifest.json").read_text())["attack"]["name"] == "bim"
    headline = predictions(saved)
    at_half = headline[headline["eps_255"] == 0.5].reset_index(drop=True)
    clean = headline[(headline["eps_255"] == 0) & headline["target"].isin(["coarse", "fine"])]
    same = ["predicted", "confidence"]
    assert at_half[same].equals(clean.reset_index(drop=True)[same])
    png, exact, jpeg = (predictions(saved, form) for form in ("-png", "-float32", "-jpeg75"))
    pd.testing.assert_frame_equal(png, headline)
    assert not exact["confidence"].equals(headline["confidence"])
    assert not jpeg["confidence"].equals(headline["confidence"])
    flips = pd.read_csv(saved / "first-flips.csv")
    assert set(flips["first_flip_eps_255"].dropna()) <= {0.5, 4.0, 8.0}
    assert not flips.loc[flips["below_8_bits"], "flips_at_8_bits"].any()


def test_a_saved_set_shows_targets_the_same_images(saved, score, capsys):
    words = [*TRAIN, "source=coarse", "targets=[coarse,fine]", "hydra.run.dir=shown"]
    assert score(f"set={saved / 'adversarial'}", *words) == 0
    assert "All 23 images keep their budget at every eps." in capsys.readouterr().out
    shown = predictions(saved.parent / "shown")
    pd.testing.assert_frame_equal(shown, predictions(saved))
    config = (saved.parent / "shown" / "config.yaml").read_text()
    assert "name: bim" in config and "protocol: joint" in config


def test_without_its_source_the_protocol_is_the_targets(saved, score, capsys):
    words = [*TRAIN, "targets=[fine]", "n_images=10"]
    assert score(f"set={saved / 'adversarial'}", *words) == 0
    assert "protocol: target_correct" in capsys.readouterr().out


def test_ensembles_and_weights_are_those_of_the_set(command_line, workspace, score, capfd):
    words = ["save_adversarial=true", "source=[coarse,fine]", "ensemble=probabilities"]
    assert command_line(*QUIET, *words, "hydra.run.dir=both") == 0
    own = ["set=both/adversarial", "targets=[coarse,fine]", "source=[coarse,fine]", *TRAIN]
    assert score(*own, "hydra.run.dir=again") == 0
    pd.testing.assert_frame_equal(predictions(Path("again")), predictions(Path("both")))
    capfd.readouterr()
    assert score(*own, "training.epochs=1") == 1
    assert "has other weights here than when the images were made" in capfd.readouterr().out


@pytest.fixture
def foreign(saved) -> Path:
    """The same images as another project would store them: PNG files and a CSV."""
    stored = read_set(saved / "adversarial")
    folder = saved.parent / "foreign"
    rows = ["filename,label"]
    for name, images in (("adv", stored.by_budget()[8.0]), ("clean", stored.clean)):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name / f"{number}.png")
    rows += [f"{number}.png,{label}" for number, label in enumerate(stored.labels)]
    (folder / "adv" / "labels.csv").write_text("\n".join(rows))
    return folder


def test_a_foreign_set_is_checked_against_its_clean_images(foreign, saved, score, capsys):
    words = [*TRAIN, f"set={foreign}/adv", f"clean={foreign}/clean", "targets=[coarse,fine]"]
    assert score(*words, "eps_255=8", "source=coarse", "hydra.run.dir=told") == 0
    told, own = predictions(saved.parent / "told"), predictions(saved)
    own = own[own["eps_255"].isin([0, 8])]
    assert told["confidence"].tolist() == own["confidence"].tolist()  # both in the set's order
    capsys.readouterr()
    assert score(*words, "eps_255=5", "standard=5", "hydra.run.dir=loose") == 0
    printed = capsys.readouterr().out
    assert "adv on photos, eps = 8/255" in printed and "unknown unknown" not in printed
    assert (
        "over_budget: adv: 23 / 23 = 100.00% of the images change by more than the stated 5/2"
        in printed
    )
    assert set(predictions(saved.parent / "loose")["eps_255"]) == {0.0, 8.0}


def test_a_foreign_set_without_clean_images_counts_all(foreign, saved, score, capsys):
    words = [*TRAIN, f"set={foreign}/adv", "targets=[fine]", "eps_255=8", "hydra.run.dir=bare"]
    assert score(*words) == 0
    printed = capsys.readouterr().out
    assert "protocol: all" in printed and "cannot be told without the clean ones" in printed
    frame = predictions(saved.parent / "bare")
    assert len(frame) == 23 and set(frame["eps_255"]) == {8.0}
    assert score(*words, "report=default") == 0  # draws no examples without clean images
    assert not (saved.parent / "bare" / "triple.png").exists()


REFUSED = [
    (["set={own}", "targets=[fine]"], "model fine has no weights, and a stored set brings no"),
    (["targets=[fine]"], "set is not given"),
    (["set={own}"], "targets is not given; name one or more of coarse, fine"),
    (["set=gone", "targets=[fine]"], "gone does not exist"),
    (["set={own}", "targets=[nonet]"], "targets names 'nonet', which is not among the models"),
    (["set={own}", "targets=[fine]", "protocol=joint"], "source=NAME names it"),
    (["set={own}", "targets=[fine]", "source=fine"], "says that its images were made on coarse"),
    (["set={own}", "targets=[fine]", "dataset=cifar10"], "says that its images are of photos"),
    (["set={other}/adv", "targets=[fine]", "eps_255=0"], "eps_255 must be a number in (0, 255]"),
    (["set={other}/adv", "targets=[fine]", "eps_255=0.0314"], "did you mean 8?"),
    (["set={other}/adv", "targets=[fine]", "labels=[a]"], "labels=['a'] is not a path"),
    (["set={other}/adv", "targets=[fine]", "origin.norm=[a]"], "origin.norm=['a'] is not a name"),
    (["set={other}/adv", "targets=[fine]", "eps_255=8", "origin.attack=a/b"], "must be a name of"),
    (["set={other}/adv", "targets=[fine]", "eps_255=8", "origin.source=a b"], "must be a name of"),
    (["set={other}/adv", "targets=[fine]", "eps_255=8", "origin.dataset=.."], "must be a name of"),
    (["set={other}/adv", "targets=[fine]", "origin.num_classes=x"], "origin.num_classes must be"),
    (["set={own}", "targets=[fine]", "eps_255=8"], "says itself what eps_255 would"),
    (["set={own}", "targets=[fine]", "standard=5"], "standard=5 is not among the budgets"),
    (["set={other}/adv", "targets=[fine]"], "do not say their budget: give eps_255"),
    (["set={other}/adv", "targets=[fine]", "eps_255=8"], "does not say how many classes there are"),
    (
        ["set={other}/adv", "targets=[fine]", "eps_255=8", "protocol=target_correct"],
        "protocol=target_correct needs the clean images",
    ),
    (
        ["set={other}/adv", "targets=[fine]", "eps_255=8", "controls=true"],
        "controls=true needs the clean images",
    ),
]


def test_bad_sets_are_refused_in_a_sentence(foreign, saved, score, capfd):
    own = saved / "adversarial"
    for words, message in REFUSED:
        given = [word.format(own=own, other=foreign) for word in words]
        assert score(*given) != 0, words
        out, err = capfd.readouterr()
        assert message in (out + err).replace("\n", ""), words
        assert "Traceback" not in out + err, words


def test_an_edited_set_is_refused(saved, score, capfd):
    own = saved / "adversarial"
    manifest = json.loads((own / "manifest.json").read_text())
    array = own / manifest["budgets"][-1]["file"]
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    assert score(*TRAIN, f"set={own}", "targets=[fine]") != 0
    assert "is damaged: its SHA-256 is not" in capfd.readouterr().err


def test_an_interrupted_job_leaves_no_half_set(command_line, workspace, monkeypatch):
    from src.evaluation.lightning_module import Transfer

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Transfer, "on_predict_epoch_end", stop)
    words = ["save_adversarial=true", "hydra.run.dir=cut"]
    monkeypatch.setattr("src.experiment.job.score_clean", lambda *args, **words: None)
    monkeypatch.setattr("src.experiment.job._gate", lambda *args: None)
    assert command_line(*QUIET, *words) == 130
    assert list((workspace / "cut" / "adversarial").iterdir()) == []
