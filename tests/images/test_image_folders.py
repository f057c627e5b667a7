"""Sets that other programs write: a folder of images, one of clean images, and a CSV."""

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.attack_settings import SavedOrigin, SavedSettings
from src.images.saved import open_set, saved_dataset

NAMES = ["b.png", "a.png", "c10.png", "c9.png"]
LABELS = [4, 0, 999, 4]
TARGETS = [1, 2, 3, 0]


def make_images(side=6):
    random = np.random.default_rng(0)
    clean = random.integers(20, 236, (4, 3, side, side), dtype=np.uint8)
    return clean, (clean + 8 * random.choice([-1, 1], clean.shape)).astype(np.uint8)


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, NAMES, strict=True):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """TransferAttack: folders of clean images and of results, with a CSV."""
    clean, changed = make_images()
    save_images(tmp_path / "images", clean)
    save_images(tmp_path / "results", changed)
    rows = [f"{n},{y},{t}" for n, y, t in zip(NAMES, LABELS, TARGETS, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,targeted_label", *rows]))
    return tmp_path


def opened(folder, **words):
    given = {"path": f"{folder}/results", "clean": f"{folder}/images", "eps_255": 8.0, **words}
    return open_set(SavedSettings(**given))


def test_a_folder_of_images(folder):
    clean, changed = make_images()
    told = {"source": "resnet50", "attack": "mifgsm", "dataset": "imagenet", "targeted": True}
    found = opened(folder, origin=SavedOrigin(**told))
    assert found.clean.targets.tolist() == LABELS and found.breaches == ()
    assert found.clean.target_labels.tolist() == TARGETS
    assert np.array_equal(found.adversarial(range(4))[0], changed)
    images = saved_dataset(found, num_classes=1000)
    assert torch.equal(images[[3, 1]].images, torch.from_numpy(clean[[3, 1]]))
    assert (found.source, found.attack.name) == ("resnet50", "mifgsm")
    assert found.attack.target_label == "data"
    other = opened(folder)
    assert other.digest != found.digest and other.source == "unknown"
    assert other.clean.target_labels is None and other.attack.target_label is None


def test_images_that_a_csv_does_not_list_are_left_out(folder):
    (folder / "few.csv").write_text("filename,label\nc9,7\na.png,2")
    found = opened(folder, labels=str(folder / "few.csv"))
    assert found.clean.targets.tolist() == [7, 2]
    assert np.array_equal(found.adversarial(range(2))[0], make_images()[1][[3, 1]])
    with pytest.raises(ValueError, match="targeted=true needs a CSV with a column"):
        opened(folder, labels=str(folder / "few.csv"), origin=SavedOrigin(targeted=True))


def test_clean_images_of_another_size(folder):
    large, _ = make_images(side=12)
    save_images(folder / "images", large)
    with pytest.raises(ValueError, match="12 pixels"):
        opened(folder)


def test_one_clean_image_of_another_size_is_named(folder):
    Image.new("RGB", (9, 6)).save(folder / "images" / "c9.png")
    with pytest.raises(ValueError, match="image 3 has 6 x 9 pixels"):
        _ = opened(folder).breaches


def test_what_is_missing_or_damaged_is_named(folder):
    for words in ({"clean": None}, {"eps_255": None}):
        with pytest.raises(ValueError, match=next(iter(words))):
            opened(folder, **words)
    with pytest.raises(ValueError, match="absent is not a folder"):
        opened(folder, clean=f"{folder}/absent", labels=f"{folder}/labels.csv")
    (folder / "results" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"results/a\.png"):
        _ = opened(folder).breaches
