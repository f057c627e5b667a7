"""Sets that other projects write: folders of images with a CSV, and arrays in batches."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.settings import SavedOrigin, SavedSettings
from src.evaluation import Breach, SavedImages, with_measured_budgets
from src.evaluation import open_saved_images as open_settings

NAMES = ["b.png", "a.png", "c10.png", "c9.png"]
LABELS = [4, 0, 999, 4]
TARGETS = [1, 2, 3, 0]


def make_images(number=4, height=6, width=5):
    random = np.random.default_rng(0)
    clean = random.integers(20, 236, (number, 3, height, width), dtype=np.uint8)
    change = 8 * random.choice([-1, 1], clean.shape)
    return clean, (clean + change).astype(np.uint8)


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, NAMES, strict=True):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / name)


def open_saved_images(path, **words) -> SavedImages:
    paths = {key: str(value) for key, value in words.items() if key in ("clean", "labels")}
    return open_settings(SavedSettings(path=str(path), **{**words, **paths}))


def adversarial(saved: SavedImages) -> np.ndarray:
    return saved.adversarial(range(len(saved)))[0].numpy()


@pytest.fixture
def folder(tmp_path):
    """TransferAttack: folders of clean images and of results, with a CSV."""
    clean, changed = make_images()
    save_images(tmp_path / "images", clean)
    save_images(tmp_path / "results", changed)
    rows = [f"{n},{y},{t}" for n, y, t in zip(NAMES, LABELS, TARGETS, strict=True)]
    text = "\n".join(["filename,label,targeted_label", *rows])
    (tmp_path / "results" / "labels.csv").write_text(text)
    return tmp_path


@pytest.fixture
def batches(tmp_path):
    """TA-Bench: `batch_N.npy` and `labels.npy`; enough of them for 10 to follow 9."""
    for name, images in zip(("clean", "changed"), make_images(number=23), strict=True):
        (tmp_path / name).mkdir()
        for number in range(12):
            np.save(tmp_path / name / f"batch_{number}.npy", images[2 * number : 2 * number + 2])
    np.save(tmp_path / "changed" / "labels.npy", np.arange(23, dtype=np.int32))
    return tmp_path


def test_a_folder_of_images(folder):
    clean, changed = make_images()
    told = {"source": "resnet50", "attack": "mifgsm", "dataset": "imagenet", "num_classes": 1000}
    origin = SavedOrigin(norm="linf", targeted=True, **told)
    words = {"clean": folder / "images", "eps_255": 8.0}
    found = open_saved_images(folder / "results", **words, origin=origin)
    assert found.index.tolist() == [0, 1, 2, 3] and found.labels.tolist() == LABELS
    assert found.target_labels.tolist() == TARGETS
    assert found.facts.attack.target_label == "data"
    assert np.array_equal(adversarial(found), changed)
    assert torch.equal(found.clean([3, 1]), torch.from_numpy(clean[[3, 1]]))
    assert (found.facts.source, found.facts.attack.name) == ("resnet50", "mifgsm")
    assert found.facts.num_classes == 1000
    assert with_measured_budgets(found).breaches == ()
    other = open_saved_images(folder / "results", **words)
    assert other.digest != found.digest and other.facts.source == "unknown"
    assert other.target_labels is None and other.facts.attack.target_label is None


def test_a_folder_without_clean_images_or_targets(folder):
    (folder / "few.csv").write_text("filename,label\nc9,7\na.png,2")
    found = open_saved_images(folder / "results", labels=folder / "few.csv", eps_255=8.0)
    assert found.labels.tolist() == [7, 2] and found.target_labels is None
    assert np.array_equal(adversarial(found), make_images()[1][[3, 1]])
    assert found.read_clean is None
    with pytest.raises(ValueError, match="targeted=true needs a CSV with a column"):
        words = {"labels": folder / "few.csv", "eps_255": 8.0}
        open_saved_images(folder / "results", **words, origin=SavedOrigin(targeted=True))


def test_arrays_in_batches(batches):
    clean, changed = make_images(number=23)
    found = open_saved_images(batches / "changed", clean=batches / "clean", eps_255=8.0)
    assert np.array_equal(adversarial(found), changed)
    assert found.labels.tolist() == list(range(23))
    assert np.array_equal(found.clean([22, 3]), clean[[22, 3]])
    assert with_measured_budgets(found).breaches == ()


def test_a_set_stored_by_rounding_down_is_found_out(folder):
    clean, _ = make_images()
    floored = ((clean / np.float32(255) - np.float32(8 / 255)) * 255).astype(np.uint8)
    save_images(folder / "results", floored)
    found = open_saved_images(folder / "results", clean=folder / "images", eps_255=8.0)
    measured = with_measured_budgets(found)
    assert measured.facts.budgets_255 == (9.0,) and measured.breaches == (Breach(8.0, 9.0, 4),)


def test_clean_images_of_another_size(folder):
    large, _ = make_images(height=12, width=9)
    save_images(folder / "images", large)
    words = {"clean": folder / "images", "eps_255": 8.0}
    with pytest.raises(ValueError, match="12 x 9"):
        open_saved_images(folder / "results", **words).clean([0])
    found = open_saved_images(folder / "results", **words, resize_clean=True)
    image = Image.fromarray(large[0].transpose(1, 2, 0)).resize((5, 6))
    assert np.array_equal(found.clean([0])[0], np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,1", "filename"),
        ("filename,label,targeted_label\na.png,1,1.5", "1.5"),
        ("filename,label\nz.png,1", "z.png"),
    ],
)
def test_wrong_csvs_are_refused(folder, text, message):
    (folder / "results" / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_saved_images(folder / "results", eps_255=8.0)


def test_wrong_folders_are_refused(folder):
    with pytest.raises(ValueError, match=r"clean=.*absent is not a folder"):
        open_saved_images(folder / "results", eps_255=8.0, clean=folder / "absent")
    (folder / "job" / "adversarial").mkdir(parents=True)
    (folder / "job" / "adversarial" / "manifest.json").touch()
    with pytest.raises(ValueError, match="job/adversarial"):
        open_saved_images(folder / "job")
    (folder / "results" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png"):
        open_saved_images(folder / "results", eps_255=8.0)
    Image.new("RGB", (9, 9)).save(folder / "results" / "a.png")
    with pytest.raises(ValueError, match="9 x 9"):
        open_saved_images(folder / "results", eps_255=8.0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("batch_3", np.zeros((2, 3, 6, 5), dtype=np.float32)),
        ("batch_3", np.zeros((2, 1, 6, 5), dtype=np.uint8)),
        ("batch_3", None),
        ("batch_3", b""),
        ("batch_3", pickle.dumps([1])),
        ("labels", np.arange(22)),
        ("labels", np.arange(23.0)),
        ("labels", np.arange(0)),
        ("labels", np.array([None] * 23)),
    ],
    ids=str,
)
def test_lacking_and_wrong_arrays_are_refused(batches, name, content):
    path = batches / "changed" / f"{name}.npy"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"{name}\.npy"):
        open_saved_images(batches / "changed", eps_255=8.0)
