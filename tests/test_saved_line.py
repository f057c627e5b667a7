"""Adversarial images from a job to files, and from files back to targets."""

import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageChops

from src.artifacts.jobs import find_jobs
from src.config.attack_settings import SavedSettings
from src.images.saved import saved_dataset
from src.run.data import DataSets
from src.utils.files import sha256_of
from tests.conftest import TINY_RUN

BOTH = ["dataset=cifar10_mini", "targets=[coarse,fine]"]
SAVING = ["attack=bim", "source=coarse", "n_images=23", "epsilon.grid=[1.5,4,8]"]
SAVING += ["save_adversarial=true", "variants=[float32]"]
OWN = "attack.path=made/adversarial"
FOREIGN = [f"{OWN}/8", "attack.clean=made/adversarial/0"]  # the same images without the record
FOREIGN += ["attack.labels=made/adversarial/images.csv"]
COUNTS = ["gradients", "forwards"]  # which a set does not keep


@pytest.fixture(scope="module")
def line(new_workspace, run_tiny):
    """A folder, and a function that runs jobs there with the words given."""
    folder = new_workspace()
    own = ("source=", "targets=", "dataset=", "n_images=", "epsilon.", "rerun=")
    words = [word for word in TINY_RUN if not word.startswith(own)]
    return folder, partial(run_tiny, folder, words=words)


@pytest.fixture
def saved_attack(line, made):
    """A function that runs `attack=saved` with the words given."""
    return partial(line[1], "attack=saved")


@pytest.fixture(scope="module")
def made(line):
    """The folder of a job that saved its images."""
    folder, run = line
    assert run(*BOTH, *SAVING, "hydra.run.dir=made") == 0
    return folder / "made"


def opened(folder: Path):
    return DataSets().open_saved(SavedSettings(path=str(folder)))


def predictions(folder: Path, variant: str = "") -> pd.DataFrame:
    return pd.read_parquet(folder / f"predictions{variant}.parquet")


def test_a_set_takes_the_list_of_its_own_job(made, tmp_path):
    """In which the files have the names that they have in the data set."""
    listed = pd.read_csv(made / "images.csv").assign(file="class/name.png")[::2]
    listed.to_csv(tmp_path / "list.csv")
    chosen = saved_dataset(opened(made / "adversarial"), images=str(tmp_path / "list.csv"))
    assert chosen.indices.tolist() == listed["index"].tolist()


def test_a_set_aimed_at_the_target_labels_of_its_data_is_read(line):
    folder, run = line
    aimed = folder / "aimed"
    (aimed / "images").mkdir(parents=True)
    for number in range(1, 11):
        image = Image.new("RGB", (32, 32), (20 * number, 99, 0))
        image.save(aimed / "images" / f"{number}.png")
    rows = [f"{number},{number},{number % 10 + 1}\n" for number in range(1, 11)]
    (aimed / "images.csv").write_text("".join(["ImageId,TrueLabel,TargetClass\n", *rows]))
    data = ["dataset=image_csv", "dataset.root=aimed", "dataset.image_size=32"]
    data += ["attack.target_label=data", "epsilon.grid=[8]", "save_adversarial=true"]
    alike = ["source=coarse", "targets=[fine]", "dataset.num_classes=10"]
    alike += ["dataset.class_names=null"]
    assert run("attack=fgsm", *data, *alike, "hydra.run.dir=aimed/made") == 0
    path = "attack.path=aimed/made/adversarial"
    assert run("attack=saved", path, *alike, "hydra.run.dir=aimed/shown") == 0
    one, two = (predictions(aimed / name)["predicted"] for name in ("made", "shown"))
    assert one.equals(two)


def test_a_saved_set_equals_the_job_that_saved_it(made, saved_attack, capsys):
    assert saved_attack(*BOTH, OWN, "source=coarse", "hydra.run.dir=shown") == 0
    assert "All 23 saved images are within their budgets." in capsys.readouterr().out
    one, two = predictions(made), predictions(made.parent / "shown")
    assert two["gradients"].isna().sum() == (two["eps_255"] > 0).sum()
    pd.testing.assert_frame_equal(two.drop(columns=COUNTS), one.drop(columns=COUNTS))
    words = ["targets=[fine]", "n_images=7", "hydra.run.dir=few"]
    assert saved_attack(OWN, *words) == 0  # without its source
    assert "protocol: target_correct" in capsys.readouterr().out
    assert predictions(made.parent / "few")["index"].nunique() == 7


@pytest.mark.slow
def test_a_set_that_claims_to_be_of_other_images_leaves_their_rows_alone(
    line, made, saved_attack, tmp_path
):
    forged = Path(shutil.copytree(made / "adversarial", tmp_path / "forged"))
    record = json.loads((forged / "record.json").read_text())
    for path in (forged / "0").iterdir():
        ImageChops.invert(Image.open(path)).save(path)
        record["files"][f"0/{path.name}"] = sha256_of(path)
    (forged / "record.json").write_text(json.dumps(record))
    victim = [*BOTH, "cache.dir=victim"]
    taken = ["source=coarse", f"attack.path={forged}", "hydra.run.dir=taken"]
    assert saved_attack(*victim, *taken) == 0
    assert line[1](*victim, *SAVING, "hydra.run.dir=honest") == 0
    pd.testing.assert_frame_equal(predictions(made.parent / "honest"), predictions(made))


def test_ensembles_targets_and_weights_are_those_of_the_set(line, tiny_weights, capfd):
    folder, run = line
    words = ["source=[coarse,fine]", *BOTH]
    job = ["save_adversarial=true", "ensemble=probabilities", "n_images=23", "epsilon.grid=[8]"]
    assert run(*words, *job, "attack.target_label=next", "hydra.run.dir=both") == 0
    own = [*words, "attack=saved", "attack.path=both/adversarial"]
    assert run(*own, "hydra.run.dir=again") == 0
    tables = [predictions(folder / name).drop(columns=COUNTS) for name in ("again", "both")]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["target_label"].notna().sum() == 2 * 23
    content = bytearray((tiny_weights / "fine.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "other.safetensors").write_bytes(content)
    capfd.readouterr()
    assert run(*own, "model.fine.weights=other.safetensors") == 1
    assert "model.fine.weights=PATH" in capfd.readouterr().out


@pytest.mark.slow
def test_a_set_without_its_record_is_foreign(made, saved_attack, capsys):
    words = [*BOTH, *FOREIGN]
    given = ["attack.eps_255=8", "source=coarse", "hydra.run.dir=given"]
    assert saved_attack(*words, *given) == 0
    shown, own = predictions(made.parent / "given"), predictions(made)
    own = own[own["eps_255"].isin([0, 8])]
    assert shown["confidence"].tolist() == own["confidence"].tolist()  # both in the set's order
    loose = ["attack.eps_255=5", "epsilon.reference=5", "hydra.run.dir=loose"]
    assert saved_attack(*words, *loose) == 0
    assert "over_budget: 8: 23 / 23 = 100.00% of the images" in capsys.readouterr().out
    assert set(predictions(made.parent / "loose")["eps_255"]) == {0.0, 5.0}


def test_a_foreign_set_leaves_to_the_settings_what_it_does_not_say(made, saved_attack):
    words = [*FOREIGN, "attack.eps_255=8"]
    words += ["targets=[fine]", "source=[coarse,fine]", "ensemble=loss", "dataset.num_classes=10"]
    words += ["attack.origin.source=coarse+fine", "attack.origin.dataset=x"]
    words += ["dataset.class_names=[a,b,c,d,e,f,g,h,i,j]", "report=default"]
    assert saved_attack(*words, "hydra.run.dir=unknown") == 0
    (job,) = find_jobs([made.parent / "unknown"])
    record = job.record
    assert (record.source, record.protocol) == ("coarse+fine", "joint")
    assert record.config["ensemble"] == "loss"
    assert (record.dataset, "".join(record.class_names)) == ("x", "abcdefghij")


DAMAGED = [  # a file, what is changed in it (or nothing is left), and what is said
    ("8/{}.png", None, "is missing"),
    ("0/{}.png", (b"IEND", b"IENE"), "is missing or was changed"),
    ("images.csv", None, "is missing"),
    ("images.csv", (b"g,", b"g,1"), "is missing or was changed"),
    ("record.json", None, "does not exist"),
    ("record.json", (b'"bim"', b'"mim"'), ".* its record is damaged"),
    ("record.json", (b"{", b""), "has no valid record"),
    ("record.json", (b'"files"', b'"filez"'), "lacks files"),
]


def test_a_set_that_is_not_whole_is_named(made, tmp_path):
    last = pd.read_csv(made / "adversarial" / "images.csv")["index"].max()
    for number, (name, change, said) in enumerate(DAMAGED):
        copy = Path(shutil.copytree(made / "adversarial", tmp_path / str(number)))
        path = copy / name.format(last)
        content = path.read_bytes()
        path.unlink()
        if change:
            assert change[0] in content
            path.write_bytes(content.replace(*change, 1))
        with pytest.raises(ValueError, match=f"{path.name} {said}"):
            opened(copy)


REFUSED = [
    ([OWN, "model.fine.weights=null"], "model fine has no weights"),
    (["attack.path=gone"], "gone"),
    ([OWN, "protocol=joint"], "source=NAME"),
    ([OWN, "source=fine"], "crafted on coarse"),
    ([OWN, "attack.eps_255=8"], "eps_255"),
    ([OWN, "epsilon.reference=5"], "1.5, 4, 8"),
    ([*FOREIGN, "attack.eps_255=0.0314"], "Did you mean 8?"),
    (FOREIGN, "attack.eps_255"),
    ([*FOREIGN, "attack.eps_255=8"], "classes"),
]


def test_bad_sets_are_refused_in_a_sentence(made, saved_attack, capfd):
    for words, message in REFUSED:
        assert saved_attack(*words, "targets=[fine]") != 0
        text = "".join(capfd.readouterr()).replace("\n", "")
        assert message in text and "Traceback" not in text, words
