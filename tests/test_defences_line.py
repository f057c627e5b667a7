"""From a command to tables: defences, adaptive attackers, and adversarial images from files."""

import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageChops

from src import load_sweep, rates
from src.artifacts.jobs import find_jobs
from src.config.attack_settings import SavedSettings
from src.images.attacker import Attacker
from src.images.saved import saved_dataset
from src.run.data import DataSets
from src.utils.files import sha256_of
from tests.conftest import TINY_RUN, replaced, run_words

STORED = replaced(TINY_RUN, "rerun=false")
OWN_WORDS = ("source=", "targets=", "dataset=", "n_images=", "epsilon.", "rerun=")
BARE = [word for word in TINY_RUN if not word.startswith(OWN_WORDS)]
JOB = ["attack=bim", "attack.steps=2", "variants=[uint8]"]
DEFENCES = ["defences=[none,jpeg,random_resize_pad]", "defence.random_resize_pad.repeats=3"]
SAVING = ["save_adversarial=true", "epsilon.grid=[8]"]
SAVED = ["attack=saved", "variants=[]", "epsilon.grid=[8]"]
BOTH = ["dataset=cifar10_mini", "targets=[coarse,fine]"]
SET = ["attack=bim", "source=coarse", "n_images=23", "epsilon.grid=[1.5,4,8]"]
SET += [*BOTH, "save_adversarial=true", "variants=[float32]"]
OWN = ["attack=saved", "attack.path=set/adversarial"]
FOREIGN = ["attack=saved", "attack.path=set/adversarial/8"]  # the same images without the record
FOREIGN += ["attack.clean=set/adversarial/0", "attack.labels=set/adversarial/images.csv"]
COUNTS = ["gradients", "forwards"]  # which a set does not keep
slow = pytest.mark.slow


def own_attack(model, images, labels, eps):
    return images + eps * model(images)[0, 0].sign()


@pytest.fixture(scope="module")
def line(new_workspace, run_tiny):
    """A folder, and a function that runs jobs in folders there; what is stored is used."""
    root = new_workspace()

    def run(name: str, *words: str, words_of_all: list[str] = STORED) -> Path:
        assert run_tiny(root, *words, f"hydra.run.dir={name}", words=words_of_all) == 0
        return root / name

    return root, run


@pytest.fixture
def refused(line, run_tiny, capfd):
    """A function that runs a job which must fail, and returns what it prints."""

    def run(*words: str, code: int = 2, words_of_all: list[str] = STORED) -> str:
        assert run_tiny(line[0], *words, "hydra.run.dir=refused", words=words_of_all) == code
        text = "".join(capfd.readouterr()).replace("\n", "")
        assert "Traceback" not in text
        return text

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


@pytest.fixture(scope="module")
def saved_set(line):
    """The folder of a job that saved its images."""
    return line[1]("set", *SET, words_of_all=BARE)


@pytest.fixture
def bare(line):
    """A function that runs jobs in folders with the words given."""
    return partial(line[1], words_of_all=BARE)


def opened(folder: Path):
    return DataSets().open_saved(SavedSettings(path=str(folder)))


def test_a_set_takes_the_list_of_its_own_job(saved_set, tmp_path):
    """In which the files have the names that they have in the data set."""
    listed = pd.read_csv(saved_set / "images.csv").assign(file="class/name.png")[::2]
    listed.to_csv(tmp_path / "list.csv")
    chosen = saved_dataset(opened(saved_set / "adversarial"), images=str(tmp_path / "list.csv"))
    assert chosen.indices.tolist() == listed["index"].tolist()


def test_a_saved_set_equals_the_job_that_saved_it(saved_set, bare, capsys):
    shown = predictions(bare("shown", *OWN, *BOTH, "source=coarse"))
    assert "All 23 saved images are within their budgets." in capsys.readouterr().out
    assert shown["gradients"].isna().sum() == (shown["eps_255"] > 0).sum()
    own = predictions(saved_set)
    pd.testing.assert_frame_equal(shown.drop(columns=COUNTS), own.drop(columns=COUNTS))
    few = bare("few", *OWN, "targets=[fine]", "n_images=7")  # without its source
    assert "protocol: target_correct" in capsys.readouterr().out
    assert predictions(few)["index"].nunique() == 7


@slow
def test_a_set_that_claims_to_be_of_other_images_leaves_their_rows_alone(saved_set, bare, tmp_path):
    forged = Path(shutil.copytree(saved_set / "adversarial", tmp_path / "forged"))
    record = json.loads((forged / "record.json").read_text())
    for path in (forged / "0").iterdir():
        ImageChops.invert(Image.open(path)).save(path)
        record["files"][f"0/{path.name}"] = sha256_of(path)
    (forged / "record.json").write_text(json.dumps(record))
    victim = "cache.dir=victim"
    bare("taken", victim, "attack=saved", f"attack.path={forged}", *BOTH, "source=coarse")
    honest = predictions(bare("honest", victim, *SET))
    pd.testing.assert_frame_equal(honest, predictions(saved_set))


def test_ensembles_targets_and_weights_are_those_of_the_set(line, bare, tiny_weights, refused):
    words = ["source=[coarse,fine]", *BOTH]
    job = ["attack=bim", "ensemble=probabilities", "n_images=23", "attack.target_label=next"]
    first = predictions(bare("both", *words, *job, *SAVING))
    own = [*words, "attack=saved", "attack.path=both/adversarial"]
    again = predictions(bare("both_again", *own))
    pd.testing.assert_frame_equal(again.drop(columns=COUNTS), first.drop(columns=COUNTS))
    assert again["target_label"].notna().sum() == 2 * 23
    content = bytearray((tiny_weights / "fine.safetensors").read_bytes())
    content[-1] ^= 1
    (line[0] / "other.safetensors").write_bytes(content)
    other = "model.fine.weights=other.safetensors"
    assert "model.fine.weights=PATH" in refused(*own, other, code=1, words_of_all=BARE)


@slow
def test_a_set_without_its_record_is_foreign(saved_set, bare, capsys):
    words = [*BOTH, *FOREIGN]
    shown = predictions(bare("given", *words, "attack.eps_255=8", "source=coarse"))
    own = predictions(saved_set).query("eps_255 in [0, 8]")
    assert shown["confidence"].tolist() == own["confidence"].tolist()  # both in the set's order
    loose = predictions(bare("loose", *words, "attack.eps_255=5", "epsilon.reference=5"))
    assert "over_budget: 8: 23 / 23 = 100.00% of the images" in capsys.readouterr().out
    assert set(loose["eps_255"]) == {0.0, 5.0}


def test_a_foreign_set_leaves_to_the_settings_what_it_does_not_say(saved_set, bare):
    words = [*FOREIGN, "attack.eps_255=8", "report=default"]
    words += ["targets=[fine]", "source=[coarse,fine]", "ensemble=loss", "dataset.num_classes=10"]
    words += ["attack.origin.source=coarse+fine", "attack.origin.dataset=x"]
    (job,) = find_jobs([bare("x", *words, "dataset.class_names=[a,b,c,d,e,f,g,h,i,j]")])
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


def test_a_set_that_is_not_whole_is_named(saved_set, tmp_path):
    last = pd.read_csv(saved_set / "adversarial" / "images.csv")["index"].max()
    for number, (name, change, said) in enumerate(DAMAGED):
        copy = Path(shutil.copytree(saved_set / "adversarial", tmp_path / str(number)))
        path = copy / name.format(last)
        content = path.read_bytes()
        path.unlink()
        if change:
            assert change[0] in content
            path.write_bytes(content.replace(*change, 1))
        with pytest.raises(ValueError, match=f"{path.name} {said}"):
            opened(copy)


@pytest.mark.usefixtures("saved_set")
def test_bad_sets_are_refused_in_a_sentence(refused):
    for words, message, code in (
        ([*OWN, "model.fine.weights=null"], "model fine has no weights", 2),
        (["attack=saved", "attack.path=gone"], "gone", 2),
        ([*OWN, "protocol=joint"], "source=NAME", 2),
        ([*OWN, "source=fine"], "crafted on coarse", 2),
        ([*OWN, "attack.eps_255=8"], "eps_255", 2),
        ([*OWN, "epsilon.reference=5"], "1.5, 4, 8", 2),
        ([*FOREIGN, "attack.eps_255=0.0314"], "Did you mean 8?", 2),
        (FOREIGN, "attack.eps_255", 2),
        ([*FOREIGN, "attack.eps_255=8"], "classes", 2),
    ):
        text = refused(*words, "targets=[fine]", code=code, words_of_all=BARE)
        assert message in text, words
