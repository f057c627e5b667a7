"""Adversarial images from a job to files, and from files back to targets."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.config.settings import SavedSettings
from src.evaluation import open_saved_images
from src.store.jobs import find_jobs

BOTH = ["dataset=cifar10_mini", "targets=[coarse,fine]"]


@pytest.fixture(scope="module")
def line(new_workspace, run_in):
    """A folder, and a function that runs `python -m src.main` there with the words given."""
    folder = new_workspace()
    words = ["--config-dir=conf", "model=[coarse,fine]", "trainer=cpu", "trainer.batch_size=10"]
    words += ["trainer.progress_bar=false", "tracking=none", "report=none"]
    return folder, partial(run_in, folder, *words)


@pytest.fixture
def saved_attack(line, made):
    """A function that runs `attack=saved` with the words given."""
    return partial(line[1], "attack=saved")


@pytest.fixture(scope="module")
def made(line):
    """The folder of a job that saved its images."""
    folder, run = line
    words = ["attack=bim", "source=coarse", "n_images=23", "epsilon.grid=[0.5,4,8]"]
    words += ["save_adversarial=true", "variants=[float32,png,jpeg75]", "hydra.run.dir=made"]
    assert run(*BOTH, *words) == 0
    return folder / "made"


@pytest.fixture(scope="module")
def foreign(made):
    """The same images as another project would store them: PNG files and a CSV."""
    saved = open_saved_images(SavedSettings(path=str(made / "adversarial")))
    folder = made.parent / "foreign"
    rows = range(len(saved))
    for name, images in (("adv", saved.adversarial(rows)[-1]), ("clean", saved.clean(rows))):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images.numpy().transpose(0, 2, 3, 1)):
            Image.fromarray(image).save(folder / name / f"{number}.png")
    lines = [f"{number}.png,{label}" for number, label in enumerate(saved.labels)]
    (folder / "adv" / "labels.csv").write_text("\n".join(["filename,label", *lines]))
    return folder


def predictions(folder: Path, variant: str = "") -> pd.DataFrame:
    return pd.read_parquet(folder / f"predictions{variant}.parquet")


def test_the_matrix_is_of_what_the_files_hold(made):
    saved = open_saved_images(SavedSettings(path=str(made / "adversarial")))
    assert saved.facts.budgets_255 == (0.5, 4.0, 8.0)
    assert saved.facts.source == "coarse" and saved.facts.attack.name == "bim"
    rows = range(len(saved))
    for eps, images in zip(saved.facts.budgets_255, saved.adversarial(rows).int(), strict=True):
        assert (images - saved.clean(rows).int()).abs().max() == int(eps)  # whole levels only
    primary = predictions(made)
    png, exact, jpeg = (predictions(made, form) for form in ("-png", "-float32", "-jpeg75"))
    pd.testing.assert_frame_equal(png, primary)
    assert not exact["confidence"].equals(primary["confidence"])
    assert not jpeg["confidence"].equals(primary["confidence"])
    flips = pd.read_csv(made / "minimum-budgets.csv")
    assert set(flips["first_flip_eps_255"].dropna()) <= {0.5, 4.0, 8.0}


def test_a_saved_set_equals_the_job_that_saved_it(made, saved_attack, capsys):
    own = f"attack.path={made / 'adversarial'}"
    assert saved_attack(*BOTH, own, "source=coarse", "hydra.run.dir=shown") == 0
    assert "All 23 images keep their budget at every eps." in capsys.readouterr().out
    pd.testing.assert_frame_equal(predictions(made.parent / "shown"), predictions(made))
    config = (made.parent / "shown" / "config.yaml").read_text()
    assert "name: bim" in config and "protocol: joint" in config
    assert saved_attack(own, "targets=[fine]", "n_images=10") == 0  # without its source
    assert "protocol: target_correct" in capsys.readouterr().out
    assert saved_attack(own, "targets=[fine]", "dataset.n_images=7", "hydra.run.dir=few") == 0
    assert predictions(made.parent / "few")["index"].nunique() == 7


def test_sets_with_other_budgets_have_matrices_of_their_own(line, made):
    folder, run = line
    words = ["attack=bim", "source=fine", "n_images=23", "epsilon.grid=[2]"]
    assert run(*BOTH, *words, "save_adversarial=true", "hydra.run.dir=small") == 0
    paths = ",".join(f"{place}/adversarial" for place in (made, folder / "small"))
    sets = ["-m", "attack=saved", f"attack.path={paths}", "hydra.sweep.dir=sets"]
    assert run(*BOTH, *sets) == 0
    tables = [pd.read_csv(path) for path in (folder / "sets").glob("matrix-*.csv")]
    assert sorted(table["source"].iloc[-1] for table in tables) == ["coarse", "fine"]


def test_ensembles_and_weights_are_those_of_the_set(line, tiny_weights, capfd):
    folder, run = line
    words = ["source=[coarse,fine]", *BOTH]
    job = ["save_adversarial=true", "ensemble=probabilities", "n_images=23", "epsilon.grid=[8]"]
    assert run(*words, *job, "hydra.run.dir=both") == 0
    own = [*words, "attack=saved", "attack.path=both/adversarial"]
    assert run(*own, "hydra.run.dir=again") == 0
    pd.testing.assert_frame_equal(predictions(folder / "again"), predictions(folder / "both"))
    content = bytearray((tiny_weights / "fine.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "other.safetensors").write_bytes(content)
    capfd.readouterr()
    assert run(*own, "model.fine.weights=other.safetensors") == 1
    assert "model fine has other weights here than when the images" in capfd.readouterr().out


def test_a_foreign_set_is_checked_against_its_clean_images(foreign, made, saved_attack, capsys):
    words = [*BOTH, f"attack.path={foreign}/adv", f"attack.clean={foreign}/clean"]
    given = ["attack.eps_255=8", "source=coarse", "hydra.run.dir=given"]
    assert saved_attack(*words, *given) == 0
    shown, own = predictions(made.parent / "given"), predictions(made)
    own = own[own["eps_255"].isin([0, 8])]
    assert shown["confidence"].tolist() == own["confidence"].tolist()  # both in the set's order
    capsys.readouterr()
    loose = ["attack.eps_255=5", "epsilon.reference=5", "hydra.run.dir=loose"]
    assert saved_attack(*words, *loose) == 0
    printed = capsys.readouterr().out
    assert "adv on cifar10_mini, eps = 8/255" in printed and "unknown unknown" not in printed
    assert "over_budget: adv: 23 / 23 = 100.00% of the images change by more" in printed
    assert set(predictions(made.parent / "loose")["eps_255"]) == {0.0, 8.0}


@pytest.mark.parametrize("layout", ["folder", "arrays"])
def test_a_foreign_set_without_clean_images_counts_all(foreign, made, saved_attack, capsys, layout):
    folder = made.parent
    words = [
        "dataset=cifar10_mini",
        "targets=[fine]",
        "attack.eps_255=8",
        f"hydra.run.dir={layout}",
    ]
    words += [f"attack.path={foreign}/adv", "report=default", "report.pairs=0"]
    if layout == "arrays":  # of a set whose data set is unknown
        saved = open_saved_images(SavedSettings(path=str(folder / "made" / "adversarial")))
        (folder / "advs").mkdir()
        np.save(folder / "advs" / "batch_0.npy", saved.adversarial(range(len(saved)))[-1].numpy())
        np.save(folder / "advs" / "labels.npy", saved.labels)
        words += ["attack.path=advs", "dataset=saved"]
        words += ["attack.origin.num_classes=10", "dataset.class_names=[a,b,c,d,e,f,g,h,i,j]"]
    assert saved_attack(*words) == 0
    (job,) = find_jobs([folder / layout])
    assert ("".join(job.record.class_names) == "abcdefghij") == (layout == "arrays")
    assert "protocol: all" in capsys.readouterr().out
    frame = predictions(folder / layout)
    assert len(frame) == 23 and set(frame["eps_255"]) == {8.0}
    text = (folder / layout / "report.html").read_text()
    assert "clean predictions" in text and "1 of 1 jobs have none" in text
    words = [word for word in words if not word.startswith(("hydra.run.dir", "report"))]
    assert saved_attack(*words, f"hydra.run.dir={layout}-more") == 0
    assert "computed again" not in capsys.readouterr().out  # its rows are taken over


OWN = ["attack.path={own}", "targets=[fine]"]
OTHER = ["attack.path={other}/adv", "targets=[fine]"]
AT_8 = [*OTHER, "attack.eps_255=8"]
REFUSED = [
    ([*OWN, "model.fine.weights=null"], "model fine has no weights, and a saved set brings no"),
    (["attack.path=gone", "targets=[fine]"], "gone"),
    ([*OWN, "protocol=joint"], "source=NAME names it"),
    ([*OWN, "source=fine"], "says that its images were crafted on coarse"),
    ([*OWN, "attack.eps_255=8"], "says itself what"),
    ([*OWN, "epsilon.reference=5"], "=5 is not among the budgets 0.5, 4, 8"),
    ([*OTHER, "attack.eps_255=0.0314"], "did you mean 8?"),
    ([*AT_8, "attack.origin.dataset=.."], ".."),
    (OTHER, "give eps_255"),
    (AT_8, "how many classes there are"),
    ([*AT_8, "protocol=target_correct"], "protocol=target_correct needs the clean images"),
    ([*AT_8, "controls=true"], "controls=true needs the clean images"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(w) for w, _ in REFUSED])
def test_bad_sets_are_refused_in_a_sentence(foreign, made, saved_attack, capfd, words, message):
    own = made / "adversarial"
    assert saved_attack(*[word.format(own=own, other=foreign) for word in words]) != 0
    out, err = capfd.readouterr()
    assert message in (out + err).replace("\n", "")
    assert "Traceback" not in out + err
