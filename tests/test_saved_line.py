"""Adversarial images from a job to files, and from files back to targets."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.evaluation import SavedImages, open_saved_images

QUIET = ["tracking=none", "report=none"]
TRAIN = ["dataset=photos", "dataset.n_train=200"]


@pytest.fixture
def evaluate_saved(workspace, monkeypatch, tiny_run):
    """A function that runs `attack=saved` with two tiny models and returns its exit code."""

    def run(*arguments: str) -> int:
        from src.main import main

        kept = ("--config-dir", "model=", "training.", "trainer")
        words = [word for word in tiny_run if word.startswith(kept)]
        monkeypatch.setattr(sys, "argv", ["src.main", *words, *QUIET, "attack=saved", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def predictions(folder: Path, variant: str = "") -> pd.DataFrame:
    return pd.read_parquet(folder / f"predictions{variant}.parquet")


@pytest.fixture
def saved(command_line, workspace) -> Path:
    """The folder of a job that saved its images."""
    words = ["save_adversarial=true", "variants=[float32,png,jpeg75]", "attack=bim"]
    assert command_line(*QUIET, *words, "hydra.run.dir=made") == 0
    return workspace / "made"


def images(stored: SavedImages) -> tuple[np.ndarray, np.ndarray]:
    """Return all clean images, (N, 3, H, W), and all adversarial ones, (K, N, 3, H, W)."""
    rows = range(len(stored))
    return stored.clean(rows).numpy(), stored.adversarial(rows).numpy()


def test_the_primary_variant_is_what_the_files_hold(saved):
    stored = open_saved_images(saved / "adversarial")
    assert stored.budgets_255 == (0.5, 4.0, 8.0) and stored.source == "coarse"
    assert stored.attack["name"] == "bim"
    clean, adversarial = images(stored)
    change = np.abs(adversarial.astype(int) - clean.astype(int))
    assert change.max((1, 2, 3, 4)).tolist() == [0, 4, 8]  # 8 bits hold whole levels only
    primary = predictions(saved)
    at_half = primary[primary["eps_255"] == 0.5].reset_index(drop=True)
    unattacked = primary[primary["eps_255"] == 0].reset_index(drop=True)
    for column in ("predicted", "confidence"):
        assert at_half[column].equals(unattacked[column])
    png, exact, jpeg = (predictions(saved, name) for name in ("-png", "-float32", "-jpeg75"))
    pd.testing.assert_frame_equal(png, primary)
    assert not exact["confidence"].equals(primary["confidence"])
    assert not jpeg["confidence"].equals(primary["confidence"])
    flips = pd.read_csv(saved / "first-flips.csv")
    assert set(flips["first_flip_eps_255"].dropna()) <= {0.5, 4.0, 8.0}
    assert not flips.loc[flips["below_8_bits"], "flips_at_8_bits"].any()


def test_saved_images_give_the_same_predictions(saved, evaluate_saved, capsys):
    words = [*TRAIN, f"attack.path={saved / 'adversarial'}"]
    both = ["source=coarse", "targets=[coarse,fine]", "hydra.run.dir=again"]
    assert evaluate_saved(*words, *both) == 0
    assert "All 23 images keep their budget at every eps." in capsys.readouterr().out
    pd.testing.assert_frame_equal(predictions(saved.parent / "again"), predictions(saved))
    config = (saved.parent / "again" / "config.yaml").read_text()
    assert "name: bim" in config and "protocol: joint" in config
    assert evaluate_saved(*words, "targets=[fine]", "n_images=10") == 0
    assert "protocol: target_correct" in capsys.readouterr().out


def test_ensembles_and_weights_are_those_of_the_set(command_line, workspace, evaluate_saved, capfd):
    words = ["save_adversarial=true", "source=[coarse,fine]", "ensemble=probabilities"]
    assert command_line(*QUIET, *words, "hydra.run.dir=both") == 0
    own = ["targets=[coarse,fine]", "source=[coarse,fine]", "ensemble=probabilities", *TRAIN]
    own.append("attack.path=both/adversarial")
    assert evaluate_saved(*own, "hydra.run.dir=again") == 0
    pd.testing.assert_frame_equal(predictions(Path("again")), predictions(Path("both")))
    capfd.readouterr()
    assert evaluate_saved(*own, "training.epochs=1") == 1
    assert "has other weights here" in capfd.readouterr().out


@pytest.fixture
def foreign(saved) -> Path:
    """The same images as another project would store them: PNG files and a CSV."""
    stored = open_saved_images(saved / "adversarial")
    folder = saved.parent / "foreign"
    clean, adversarial = images(stored)
    for name, part in (("adv", adversarial[-1]), ("clean", clean)):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(part):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name / f"{number}.png")
    rows = [f"{number}.png,{label}" for number, label in enumerate(stored.labels)]
    (folder / "adv" / "labels.csv").write_text("\n".join(["filename,label", *rows]))
    return folder


def test_foreign_images_are_measured_where_clean_ones_are_at_hand(
    foreign, saved, evaluate_saved, capsys
):
    words = [*TRAIN, f"attack.path={foreign}/adv", "targets=[coarse,fine]"]
    measured = [*words, f"attack.clean={foreign}/clean"]
    assert evaluate_saved(*measured, "attack.eps_255=8", "source=coarse", "hydra.run.dir=a") == 0
    found, own = predictions(saved.parent / "a"), predictions(saved)
    own = own[own["eps_255"].isin([0, 8])]
    assert found["confidence"].tolist() == own["confidence"].tolist()
    capsys.readouterr()
    loose = ["attack.eps_255=5", "hydra.run.dir=b"]
    assert evaluate_saved(*measured, *loose) == 0
    printed = capsys.readouterr().out
    assert "eps = 8/255" in printed and "unknown unknown" not in printed
    assert "over_budget: adv: 23 / 23 = 100.00%" in printed
    assert set(predictions(saved.parent / "b")["eps_255"]) == {0.0, 8.0}
    assert evaluate_saved(*words, "attack.eps_255=8", "hydra.run.dir=c", "report=default") == 0
    assert "protocol: all" in capsys.readouterr().out
    frame = predictions(saved.parent / "c")
    assert len(frame) == 46 and set(frame["eps_255"]) == {8.0}
    assert not (saved.parent / "c" / "examples.npz").exists()  # drawn beside clean images


REFUSED = [
    (["{own}", "targets=[fine]"], "model fine has no weights"),
    (["targets=[fine]"], "attack.path"),
    (["attack.path=gone", "targets=[fine]"], "gone"),
    (["{own}", "targets=[fine]", "protocol=joint"], "source=NAME names it"),
    (["{own}", "targets=[fine]", "source=fine"], "crafted on coarse"),
    (["{own}", "targets=[fine]", "dataset=cifar10"], "images are of photos"),
    (["{other}", "targets=[fine]", "attack.eps_255=0.0314"], "did you mean 8?"),
    (["{other}", "targets=[fine]", "attack.eps_255=8", "attack.origin.attack=a/b"], "a/b"),
    (["{other}", "targets=[fine]", "attack.eps_255=8", "attack.origin.source=a b"], "a b"),
    (["{own}", "targets=[fine]", "attack.eps_255=8"], "eps_255"),
    (["{own}", "targets=[fine]", "epsilon.reference=5"], "epsilon.reference=5"),
    (["{other}", "targets=[fine]"], "give eps_255"),
    (["{other}", "targets=[fine]", "attack.eps_255=8"], "how many classes there are"),
    (
        ["{other}", "targets=[fine]", "attack.eps_255=8", "protocol=target_correct"],
        "protocol=target_correct needs the clean images",
    ),
    (
        ["{other}", "targets=[fine]", "attack.eps_255=8", "controls=true"],
        "controls=true needs the clean images",
    ),
]


def test_bad_sets_are_refused_in_a_sentence(foreign, saved, evaluate_saved, capfd):
    own, other = f"attack.path={saved}/adversarial", f"attack.path={foreign}/adv"
    for words, message in REFUSED:
        given = [word.format(own=own, other=other) for word in words]
        assert evaluate_saved(*given) != 0, words
        out, err = capfd.readouterr()
        assert message in (out + err).replace("\n", ""), words
        assert "Traceback" not in out + err, words
    shard = next((saved / "adversarial").glob("batch-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert evaluate_saved(*TRAIN, own, "targets=[fine]") != 0
    assert f"{shard.name} is missing or damaged" in capfd.readouterr().err.replace("\n", "")


def test_an_interrupted_job_leaves_no_set(command_line, workspace, monkeypatch):
    from src.evaluation.lightning_module import Transfer

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Transfer, "on_predict_epoch_end", stop)
    assert command_line(*QUIET, "save_adversarial=true", "hydra.run.dir=cut") == 130
    with pytest.raises(ValueError, match="manifest"):
        open_saved_images(workspace / "cut" / "adversarial")
