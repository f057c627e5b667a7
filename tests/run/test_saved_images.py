"""Saved images as a source of adversarial images, and by how much they change."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from src.config.attack_settings import AttackSettings, SavedSettings
from src.data import Batch, ImageDataset, LabelledImages
from src.images.saved import Breach, SavedImages, open_set, write_set
from src.images.storage import AttackedImages
from src.utils.files import WriteError
from tests.records import make_record

INDEX, LABELS, TARGETS = np.array([3, 5, 8, 17, 40]), np.array([1, 2, 0, 0, 1]), np.arange(5) % 3
BUDGETS = (0.5, 2.0, 8.0)


def images():
    """Clean images, and for each budget adversarial ones that use all of it, (5, K, 3, 5, 5)."""
    random = np.random.default_rng(0)
    clean = random.integers(20, 236, (5, 3, 5, 5), dtype=np.uint8)
    signs = random.choice([-1, 1], clean.shape)
    adversarial = [(clean + int(eps) * signs).astype(np.uint8) for eps in BUDGETS]
    return torch.from_numpy(clean), torch.from_numpy(np.stack(adversarial, axis=1))


def saved(norm="linf", **changes):
    clean, adversarial = images()
    own = {
        "source": "a",
        "attack": AttackSettings(name="bim", label="bim", norm=norm),
        "budgets_255": BUDGETS,
        "dataset": "x",
        "index": INDEX,
        "clean": LabelledImages(clean, LABELS, None, TARGETS),
        "read": adversarial.__getitem__,
    }
    return SavedImages(**own | changes)


def test_a_set_is_a_source_of_adversarial_images():
    clean, adversarial = images()
    rows = [3, 0]
    batch = Batch(clean[rows], torch.from_numpy(LABELS[rows]), torch.from_numpy(INDEX[rows]))
    found = saved().versions(batch, BUDGETS)
    assert found.budgets == BUDGETS and found.target_labels.tolist() == TARGETS[rows].tolist()
    assert torch.equal(found.images, adversarial[rows].swapaxes(0, 1) / 255)
    (one,) = saved().versions(batch, BUDGETS[1:2]).images
    assert torch.equal(one, found.images[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budgets_that_images_exceed_are_measured(norm):
    assert saved(norm).breaches == ()
    assert saved(norm, budgets_255=(0.5, 1.0, 8.0)).breaches == (Breach(1.0, 2.0, 5),)


def test_the_digest_is_of_all_that_decides_numbers():
    first, (_, adversarial) = saved(), images()
    others = [
        saved(read=adversarial.flip(0).__getitem__),
        saved(source="b"),
        saved(index=INDEX + 1),
        saved(clean=replace(first.clean, target_labels=None)),
    ]
    assert saved().digest == first.digest
    assert len({each.digest for each in [first, *others]}) == 5


def write(folder, rows, error=None):
    """Write the set of some rows, as one batch, which an error may follow."""
    clean, adversarial = images()
    attack = AttackSettings(name="bim", label="bim", target_label="next")
    record = make_record(
        **{"key": "k", "images": len(rows), "class_names": tuple("xyz"), "weights": {"a": "w"}},
        **{"source": "a", "attack": "bim", "budgets": (0.0, *BUDGETS), "reference": 8.0},
        config={"attack": attack.model_dump(mode="json")},
    )

    def batches():
        batch = Batch(clean[rows], torch.from_numpy(LABELS[rows]), torch.from_numpy(INDEX[rows]))
        pairs = zip(BUDGETS, adversarial[rows].swapaxes(0, 1) / 255, strict=True)
        yield [AttackedImages(batch.images / 255, x, batch, eps, "linf") for eps, x in pairs]
        if error:
            raise error

    write_set(folder, record, batches(), dict(zip(INDEX.tolist(), TARGETS.tolist(), strict=True)))


def test_a_set_is_written_whole_or_not_at_all(tmp_path):
    folder, (clean, adversarial), full = tmp_path / "set", images(), OSError("full")
    with pytest.raises(WriteError, match="set cannot be written: full"):
        write(folder, range(5), full)
    assert not os.listdir(tmp_path)
    write(folder, range(5))
    files = ["0", "0.5", "2", "8", "images.csv", "record.json"]
    assert sorted(os.listdir(folder)) == files
    found = open_set(SavedSettings(path=str(folder)))
    assert (found.index.tolist(), found.budgets_255) == (INDEX.tolist(), BUDGETS)
    assert torch.equal(found.adversarial(range(5)), adversarial.swapaxes(0, 1))
    assert torch.equal(ImageDataset(found.clean)[:].images, clean)
    text = (folder / "images.csv").read_text().splitlines()
    assert text[:2] == ["filename,index,label,targeted_label", "3.png,3,1,0"]
    with pytest.raises(WriteError):
        write(folder, [1, 3], full)
    assert open_set(SavedSettings(path=str(folder))).digest == found.digest
    write(folder, [1, 3])
    assert sorted(os.listdir(folder / "0.5")) == ["17.png", "5.png"]
    assert os.listdir(tmp_path) == ["set"]


def test_files_that_are_no_set_are_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(WriteError, match="not empty"):
        write(tmp_path, [1])
    assert os.listdir(tmp_path) == ["mine"]
