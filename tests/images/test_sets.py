"""Saved images: their rounding, their folders, records of strangers, and answers about them."""

import copy
import json
import math
import os
import re
import sys
from dataclasses import replace
from functools import reduce
from hashlib import sha256
from operator import getitem
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.artifacts.record import read_record
from src.attacks import noise_signs
from src.config.attack_settings import AttackSettings, SavedOrigin, SavedSettings
from src.data import Batch, ImageDataset, LabelledImages
from src.images.answers import Answers
from src.images.saved import Breach, SavedImages, open_set, saved_dataset, write_set
from src.images.storage import AttackedImages, change_size, exceeds, round_to_8_bits
from src.run.check_job import check_job
from src.run.data import DataSets
from src.utils.files import WriteError, sha256_of
from tests.config.test_settings import read

INDEX, LABELS, TARGETS = np.array([3, 5, 8, 17, 40]), np.array([1, 2, 0, 0, 1]), np.arange(5) % 3
BUDGETS = (0.5, 2.0, 8.0)
RANDOM = np.random.default_rng(0)
CLEAN = torch.from_numpy(RANDOM.integers(20, 236, (5, 3, 32, 32), dtype=np.uint8))
SIGNS = torch.from_numpy(RANDOM.choice([-1, 1], CLEAN.shape))
ADVERSARIAL = torch.stack([(CLEAN + int(eps) * SIGNS).to(torch.uint8) for eps in BUDGETS], dim=1)


def batch_of(rows) -> Batch:
    return Batch(CLEAN[rows], torch.from_numpy(LABELS[rows]), torch.from_numpy(INDEX[rows]))


DEMO = Path(__file__).parents[2] / "docs" / "results" / "demo" / "0-fgsm-vgg_small"


def write(folder, rows=range(5), error=None):
    """Write the set of some rows, as one batch, which an error may follow."""
    record = read_record(DEMO / "predictions.parquet")[1]
    config = copy.deepcopy(record.config)
    config["attack"]["target_label"] = "next"
    facts = {"images": len(rows), "budgets": (0.0, *BUDGETS), "reference": 8.0, "config": config}

    def batches():
        batch, images = batch_of(rows), ADVERSARIAL[rows].swapaxes(0, 1) / 255
        pairs = zip(BUDGETS, images, strict=True)
        yield [AttackedImages(batch.images / 255, x, batch, eps, "linf") for eps, x in pairs]
        if error:
            raise error

    targets = dict(zip(INDEX.tolist(), TARGETS.tolist(), strict=True))
    write_set(folder, record.model_copy(update=facts), batches(), targets)


def opened(folder: Path, **words) -> SavedImages:
    return open_set(SavedSettings(path=str(folder), **words))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> SavedImages:
    folder = tmp_path_factory.mktemp("whole") / "set"
    write(folder)
    return opened(folder)


def test_a_set_is_a_source_of_adversarial_images(whole):
    rows = [3, 0]
    found = whole.versions(batch_of(rows), BUDGETS)
    assert found.budgets == BUDGETS and found.target_labels.tolist() == TARGETS[rows].tolist()
    assert torch.equal(found.images, ADVERSARIAL[rows].swapaxes(0, 1) / 255)
    assert list(whole.weights) == ["vgg_small"] and whole.ensemble == "logits" and whole.data
    (one,) = whole.versions(batch_of(rows), BUDGETS[1:2]).images
    assert torch.equal(one, found.images[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budgets_that_images_exceed_are_measured(whole, norm):
    found = replace(whole, attack=AttackSettings(name="bim", label="bim", norm=norm))
    assert found.breaches == ()
    assert replace(found, budgets_255=(0.5, 1.0, 8.0)).breaches == (Breach(1.0, 2.0, 5),)


def test_the_digest_is_of_all_that_decides_numbers(whole):
    clean = LabelledImages(CLEAN, LABELS)
    changes = [{"read": ADVERSARIAL.flip(0).__getitem__}, {"clean": clean}, {"weights": {"a": "w"}}]
    changes += [{"source": "b"}, {"index": INDEX + 1}, {"ensemble": "loss"}, {"dataset": "y"}]
    assert whole.digest == replace(whole, data="told").digest
    digests = {replace(whole, **change).digest for change in [{}, *changes]}
    assert len(digests) == 1 + len(changes) and {len(digest) for digest in digests} == {16}


def test_a_set_is_written_whole_or_not_at_all(tmp_path):
    folder, full = tmp_path / "set", OSError("full")
    with pytest.raises(WriteError, match="set cannot be written: full"):
        write(folder, error=full)
    assert not os.listdir(tmp_path)
    write(folder)
    files = ["0", "0.5", "2", "8", "images.csv", "record.json"]
    assert sorted(os.listdir(folder)) == files
    found = opened(folder)
    assert (found.index.tolist(), found.budgets_255) == (INDEX.tolist(), BUDGETS)
    assert (found.source, found.attack.name, found.attack.settings) == ("vgg_small", "fgsm", {})
    assert torch.equal(found.adversarial(range(5)), ADVERSARIAL.swapaxes(0, 1))
    assert torch.equal(ImageDataset(found.clean)[:].images, CLEAN)
    text = (folder / "images.csv").read_text().splitlines()
    assert text[:2] == ["filename,index,label,targeted_label", "3.png,3,1,0"]
    with pytest.raises(WriteError):
        write(folder, [1, 3], full)
    assert opened(folder).digest == found.digest
    write(folder, [1, 3])
    assert sorted(os.listdir(folder / "0.5")) == ["17.png", "5.png"]
    assert os.listdir(tmp_path) == ["set"]
    (folder / "record.json").unlink()
    with pytest.raises(WriteError, match="not empty"):
        write(folder)  # files that are no set
    assert len(os.listdir(folder)) == len(files) - 1


NAMES, CLASSES, ASKED = ["b.png", "a.png", "c10.png", "c9.png"], [4, 0, 999, 4], [1, 2, 3, 0]


@pytest.fixture
def others(tmp_path):
    """Keys of a set of TransferAttack: folders of clean images and of results, with a CSV."""
    for name, images in (("images", CLEAN), ("results", ADVERSARIAL[:, 2])):
        (tmp_path / name).mkdir()
        for image, file in zip(images, NAMES, strict=False):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / file)
    rows = [f"{n},{y},{t}" for n, y, t in zip(NAMES, CLASSES, ASKED, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,targeted_label", *rows]))
    (tmp_path / "few.csv").write_text("filename,label\nc9,7\na.png,2")
    return {"folder": tmp_path / "results", "clean": f"{tmp_path}/images", "eps_255": 8.0}


TOLD = SavedOrigin(source="resnet50", attack="mifgsm", dataset="imagenet", targeted=True)


def test_a_folder_of_images_of_another_program(others, tmp_path):
    found, plain = opened(**others, origin=TOLD), opened(**others)
    assert found.clean.targets.tolist() == CLASSES and found.breaches == ()
    assert found.clean.target_labels.tolist() == ASKED
    assert torch.equal(found.adversarial(range(4))[0], ADVERSARIAL[:4, 2])
    images = saved_dataset(found, num_classes=1000)
    assert torch.equal(images[[3, 1]].images, CLEAN[[3, 1]])
    with pytest.raises(ValueError, match="num_classes=N"):
        saved_dataset(found)
    assert (found.source, found.attack.name) == ("resnet50", "mifgsm")
    assert (found.attack.target_label, found.attack.norm) == ("data", "linf")
    assert plain.digest != found.digest and plain.source == "unknown"
    assert plain.attack.name == "results" and plain.attack.target_label is None
    assert plain.clean.target_labels is None and plain.index.tolist() == [0, 1, 2, 3]
    few = opened(**others, labels=f"{tmp_path}/few.csv")
    assert few.clean.targets.tolist() == [7, 2]
    assert torch.equal(few.adversarial(range(2))[0], ADVERSARIAL[[3, 1], 2])


@pytest.mark.parametrize(
    ("side", "words", "said"),
    [
        (None, {"clean": None}, "also set attack.clean"),
        (None, {"clean": "absent", "labels": "labels.csv"}, "absent is not a folder"),
        (None, {"labels": "few.csv", "origin": TOLD}, "targeted=true needs a CSV with a column"),
        (12, {}, "images holds images of 12 pixels, but the adversarial images have 32"),
        (6, {"labels": "few.csv"}, "image 1 has 6 x 6 pixels"),
        (0, {}, r"images/a\.png"),
    ],
)
def test_what_is_missing_damaged_or_of_another_size_is_named(
    others, tmp_path, monkeypatch, side, words, said
):
    monkeypatch.chdir(tmp_path)
    for name in NAMES if side == 12 else ["a.png"] if side else []:
        Image.new("RGB", (side, side)).save(tmp_path / "images" / name)
    if side == 0:
        Path("images/a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=said):
        _ = opened(**others | words).breaches


def seal(folder: Path, content: dict[str, Any]) -> None:
    content["digest"] = sha256(json.dumps(content["job"]).encode()).hexdigest()[:16]
    (folder / "record.json").write_text(json.dumps(content))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "source": ({"source": "../../x"}, r"record\.json"),
    "attack": ({"attack": "a b"}, r"record\.json"),
    "weights": ({"weights": {"resnet_small": "0" * 16}}, "no weights of vgg_small"),
    "budget": ({"budgets": [0.0, 300.0]}, r"record\.json"),
    "class names": ({"class_names": []}, r"record\.json"),
    "images": ({"images": 3}, "lacks files of its set"),
    "another file": ({}, r"8/evil\.py is not a file of the set"),
    "a lost file": ({}, r"8/3\.png is missing or was changed"),
    "a changed file": ({}, r"8/3\.png is missing or was changed"),
    "another order": ({}, "ascending number"),
    "own keys": ({}, "already states clean, labels, eps_255 and origin"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_set_with_wrong_facts_or_files_is_refused(tmp_path, what):
    write(tmp_path / "set")
    content = json.loads((tmp_path / "set" / "record.json").read_text())
    facts, said = WRONG[what]
    content["job"] |= facts
    listed, image = tmp_path / "set" / "images.csv", tmp_path / "set" / "8" / "3.png"
    match what:
        case "another file":
            image.with_name("evil.py").write_text("")
        case "a lost file":
            image.unlink()
        case "a changed file":
            image.write_bytes(image.read_bytes() + b"0")
        case "another order":
            head, first, second, *rest = listed.read_text().splitlines()
            listed.write_text("\n".join([head, second, first, *rest]))
            content["files"]["images.csv"] = sha256_of(listed)
    seal(tmp_path / "set", content)
    with pytest.raises(ValueError, match=said) as caught:
        opened(tmp_path / "set", **({"eps_255": 8.0} if what == "own keys" else {}))
    assert str(caught.value).isprintable()
    (tmp_path / "set" / "record.json").write_text("no JSON")
    with pytest.raises(ValueError, match=r"record\.json cannot be read as"):
        opened(tmp_path / "set")


SHELL = (
    "[k for k in ().__class__.__base__.__subclasses__() if k.__name__ == '_wrap_close'][0]"
    ".__init__.__globals__['system']('touch canary') or 1"
)
HOSTILE = [SHELL, "__import__('canary_module')", "canary_module.f", "canary_module", "${canary:}"]
HOSTILE += ["/", "..", "../../x", "\u202e", "\x1b[31m", "", "a" * 2000, "a+b", "a@b", "<b>", "nan"]
NUMBERS = [0, -1, 1, 2**70, 1.5, 1e400, float("nan"), True, None, [], {}, [[]]]
VALUES = [*HOSTILE, *NUMBERS, *[[text] for text in HOSTILE]]
VALUES += [{"_target_": text, "gradients": text} for text in HOSTILE]


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in JSON data."""
    if not isinstance(data, dict | list):
        return [path]
    items = data.items() if isinstance(data, dict) else enumerate(data)
    return [*([path] if path else []), *(p for k, v in items for p in places(v, (*path, k)))]


def forged(text: str | bytes, number: int) -> dict[str, Any]:
    """Return a record with other values at some places, half of them where code was once named."""
    content, draw = json.loads(text), Random(number)
    for _ in range(draw.randint(1, 4)):
        every = places(content["job"])
        attack = [path for path in every if path[:2] == ("config", "attack")]
        *above, last = draw.choice(draw.choice([every, attack or every]))
        reduce(getitem, above, content["job"])[last] = copy.deepcopy(draw.choice(VALUES))
    return content


def test_a_sets_record_runs_nothing(tmp_path, monkeypatch):
    """A call works, or is refused in a sentence.

    A hostile module leaves a file when it is imported; the shell's command leaves the same one.
    """
    (tmp_path / "canary_module.py").write_text("open('canary', 'w')\nf = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(folder := tmp_path / "set")
    words = ["attack=saved", f"attack.path={folder}", "dataset=cifar10_mini", "plan=only"]
    settings, text = read(*words, "targets=[vgg_small]"), (folder / "record.json").read_text()
    for number in range(120):
        seal(folder, forged(text, number))
        try:
            planned = check_job(settings, DataSets())
        except ValueError as error:
            assert len(str(error)) < 1500
        else:
            attack = planned.settings.attack
            assert planned.saved is not None and attack.settings == {}
            assert attack.gradients(1, 1) is None
        assert "canary_module" not in sys.modules and not Path("canary").exists()


@pytest.fixture
def asked(tmp_path, monkeypatch) -> tuple[torch.Tensor, pd.DataFrame]:
    """Images that are saved in a folder here, and answers about them."""
    monkeypatch.chdir(tmp_path)
    Path("saved/8").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    paths = [Path(f"saved/8/{number}.png") for number in range(4)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    answers = {"sha256": map(sha256_of, paths), "predicted": [3, 1, 4, 1]}
    answers = pd.DataFrame({**answers, "confidence": [0.91, 0.5, 1.0, 0.11]})
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, answers


def answering(rows: pd.DataFrame) -> Answers:
    rows.to_csv("answers.csv", index=False)
    return Answers("answers.csv", 10, ["saved", None])


def test_the_other_classes_share_the_rest_and_other_images_are_refused(asked, caplog):
    images, answers = asked
    found = answering(answers)(images[[1, 0]]).exp()
    wanted = torch.full((2, 10), 0.5 / 9)
    wanted[1] = 0.01
    wanted[0, 1], wanted[1, 3] = 0.5, 0.91
    torch.testing.assert_close(found, wanted)
    certain = answering(answers.drop(columns="confidence"))(images)
    assert certain.argmax(1).tolist() == [3, 1, 4, 1] and (certain.exp().amax(1) > 0.999).all()
    assert certain.isfinite().all() and not caplog.messages
    with pytest.raises(ValueError, match="has no answer for one of the images"):
        answering(answers)(images.flip(-1))
    few = answering(answers[:-1])
    assert re.search("no answer for 1 of the 4 saved images, such as .*3.png", caplog.text)
    assert len(few(images[:3])) == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.drop(columns="sha256"), "the columns sha256 and predicted"),
        (lambda rows: rows.assign(predicted=rows["predicted"].where(rows.index != 2)), "row 3 has"),
        (lambda rows: rows.assign(predicted=10), "row 1 needs a class from 0 to 9"),
        (lambda rows: rows.assign(confidence=[0.9, 0.1, 1, 1]), "row 2 needs .*above 0.1 and up"),
        (lambda rows: rows.assign(confidence=1.01), "row 1 needs .* a confidence above 0.1"),
        (lambda rows: rows[:1].assign(sha256="00" * 32), "is about 1 images that attack=saved"),
        (lambda rows: rows[:0], "answers.csv has no answers"),
        (lambda rows: rows.assign(predicted="\u0663"), "row 1 has no class number"),
        (lambda rows: rows.rename(columns={"predicted": "predicted\0"}), "NUL bytes"),
    ],
)
def test_answers_that_do_not_fit_the_images_are_refused(asked, change, text):
    with pytest.raises(ValueError, match=text):
        answering(change(asked[1]))


seeds = st.integers(0, 2**31)
budgets = st.one_of(st.integers(0, 40).map(float), st.floats(0, 40, allow_nan=False))


def pair(seed, eps_255, size=4, spread=1.5):
    """Clean images and float images around them, some outside the ball."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator)
    change = (torch.rand(clean.shape, generator=generator) * 2 - 1) * spread * eps_255 / 255
    return clean, (clean / 255 + change).clamp(0, 1)


@settings(max_examples=30, deadline=None)
@given(seeds, budgets)
def test_linf_is_the_nearest_level_in_the_ball(seed, eps_255):
    clean, adversarial = pair(seed, eps_255)
    stored = round_to_8_bits(adversarial, clean, eps_255)
    levels = np.arange(256).reshape(256, 1)
    change = np.abs(levels - clean.numpy().reshape(1, -1).astype(int))
    wanted = adversarial.double().numpy().reshape(1, -1) * 255
    distances = np.where(change <= math.floor(eps_255 + 1e-4), np.abs(levels - wanted), np.inf)
    found = np.take_along_axis(distances, stored.numpy().reshape(1, -1).astype(int), axis=0)
    np.testing.assert_allclose(found[0], distances.min(axis=0), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seeds, budgets, st.sampled_from(["linf", "l2"]))
def test_rounding_keeps_the_budget_and_is_idempotent(seed, eps_255, norm):
    clean, adversarial = pair(seed, eps_255, spread=2.5)
    stored = round_to_8_bits(adversarial, clean, eps_255, norm)
    assert not exceeds(change_size(stored, clean, norm), eps_255, norm).any()
    assert torch.equal(round_to_8_bits(stored / 255, clean, eps_255, norm), stored)


def test_float_rounding_does_not_move_the_budget():
    clean = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    for eps_255 in (8.000001, 7.999999, float(np.float32(8 / 255)) * 255):
        stored = round_to_8_bits(torch.ones(1, 3, 2, 2), clean, eps_255)
        assert torch.equal(stored, clean + 8) and not exceeds(torch.tensor(8), eps_255, "linf")


def test_l2_rounds_to_nearest_or_toward_the_clean_image_or_onto_the_ball():
    clean, adversarial = pair(1, 8.0, spread=1.0)  # uniform changes: RMS 8 / sqrt(3)
    stored = round_to_8_bits(adversarial, clean, 8.0, "l2")
    assert torch.equal(stored, (adversarial * 255).round().to(torch.uint8))
    clean = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    adversarial = clean / 255 + 2.6 / 255  # RMS 2.6, nearest levels 3 away
    adversarial[1] = (clean[1].float() + 2.4) / 255  # nearest levels 2 away
    assert torch.equal(round_to_8_bits(adversarial, clean, 2.6, "l2"), clean + 2)
    clean, adversarial = pair(5, 60.0)
    stored = round_to_8_bits(adversarial, clean, 10.0, "l2")
    size = change_size(stored, clean, "l2")
    assert (size <= 10).all() and (size > 9).all()
    assert (stored.int() - clean.int()).abs().max() > 10  # the L2 ball is no box


def test_sizes_are_exact_at_the_border():
    clean = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    stored = clean.clone()
    stored[0, 0, 0, 0], stored[1, 0, 0, 0], stored[2] = 8, 9, 255
    linf, l2 = (change_size(stored, clean, norm) for norm in ("linf", "l2"))
    size = 8 / math.sqrt(12)
    assert linf.tolist() == [8, 9, 255] and l2.tolist() == pytest.approx([size, size * 9 / 8, 255])
    assert exceeds(linf, 8.9, "linf").tolist() == [False, True, True]
    assert exceeds(l2, size, "l2").tolist() == [False, True, True]
    assert exceeds(l2, size - 0.001, "l2").all()


def test_controls_move_pixels_by_noise_or_by_other_perturbations():
    clean = torch.full((2, 3, 4, 4), 0.5)
    change = torch.linspace(-8, 8, 16).view(1, 1, 4, 4).expand(2, 3, 4, 4) / 255
    change = change * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    levels = (clean * 255).round().to(torch.uint8)
    batch = Batch(levels, torch.tensor([0, 1]), torch.tensor([3, 7]))
    attacked = AttackedImages(clean, clean + change, batch, 8.0, "linf")
    noise = attacked.control("noise", "float32", 1)
    torch.testing.assert_close(noise, clean + 8 / 255 * noise_signs(1, batch.index, clean))
    stored = 255 * attacked.control("noise", "stored", 1)
    torch.testing.assert_close(stored, stored.round(), rtol=0, atol=1e-4)
    others = attacked.control("shuffled", "float32", 0, torch.tensor([1, 0])) - clean
    torch.testing.assert_close(others, change.flip(0), rtol=0, atol=1e-6)
    control = attacked.control("shuffled", "float32", 0) - clean  # of a universal perturbation
    for image, own in zip(control, change, strict=True):
        assert torch.allclose(image, image[:1], atol=1e-6)  # channels together
        values = image[0].flatten().sort().values
        assert torch.allclose(values, own[0].flatten(), atol=1e-6)
        assert not torch.allclose(image, own)
