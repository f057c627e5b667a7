"""Sets that other projects write: folders of images with a CSV, and arrays in batches."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.settings import SavedOrigin
from src.evaluation import (
    UNKNOWN_ORIGIN,
    Breach,
    SavedImages,
    open_saved_images,
    with_measured_budgets,
)

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


def save_csv(folder, header="filename,label,targeted_label", rows=None):
    rows = rows or [f"{n},{y},{t}" for n, y, t in zip(NAMES, LABELS, TARGETS, strict=True)]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


def adversarial(saved: SavedImages) -> np.ndarray:
    return saved.adversarial(range(len(saved)))[0].numpy()


@pytest.fixture
def folder(tmp_path):
    """TransferAttack: `data/labels.csv`, `data/images/`, and a flat folder of results."""
    clean, changed = make_images()
    save_images(tmp_path / "data" / "images", clean)
    save_images(tmp_path / "results", changed)
    save_csv(tmp_path / "data")
    return tmp_path


@pytest.fixture
def batches(tmp_path):
    """TA-Bench: `batch_N.npy` and `labels.npy`; enough of them for 10 to follow 9."""
    _, changed = make_images(number=23)
    for number in range(12):
        np.save(tmp_path / f"batch_{number}.npy", changed[2 * number : 2 * number + 2])
    np.save(tmp_path / "labels.npy", np.arange(23))
    return tmp_path


def test_a_folder_of_images(folder):
    clean, changed = make_images()
    origin = SavedOrigin(
        source="resnet50", attack="mifgsm", norm="linf", dataset="imagenet", num_classes=1000
    )
    words = {"clean": folder / "data" / "images", "eps_255": 8.0}
    found = open_saved_images(folder / "results", **words, origin=origin)
    assert found.index.tolist() == [0, 1, 2, 3] and found.labels.tolist() == LABELS
    assert found.target_labels.tolist() == TARGETS
    assert np.array_equal(adversarial(found), changed)
    assert torch.equal(found.clean([3, 1]), torch.from_numpy(clean[[3, 1]]))
    assert (found.source, found.attack, found.num_classes) == ("resnet50", "mifgsm", 1000)
    assert with_measured_budgets(found).breaches == ()
    other = open_saved_images(folder / "results", **words)
    assert other.digest != found.digest and other.source == "unknown"


def test_a_folder_without_clean_images_or_targets(folder):
    save_csv(folder / "results", "filename,label", ["c9,7", "a.png,2"])
    found = open_saved_images(folder / "results", eps_255=8.0)
    assert found.labels.tolist() == [7, 2] and found.target_labels is None
    assert np.array_equal(adversarial(found), make_images()[1][[3, 1]])
    assert found.read_clean is None
    named = open_saved_images(
        folder / "results", labels=folder / "data" / "labels.csv", eps_255=8.0
    )
    assert named.labels.tolist() == LABELS


def test_a_set_stored_by_rounding_down_is_found_out(folder):
    clean, _ = make_images()
    floored = ((clean / np.float32(255) - np.float32(8 / 255)) * 255).astype(np.uint8)
    save_images(folder / "results", floored)
    found = open_saved_images(folder / "results", clean=folder / "data" / "images", eps_255=8.0)
    measured = with_measured_budgets(found)
    assert (measured.budgets_255, measured.breaches) == ((9.0,), (Breach(8.0, 9.0, 4),))


def test_clean_images_of_another_size(folder):
    large, _ = make_images(height=12, width=9)
    save_images(folder / "data" / "images", large)
    words = {"clean": folder / "data" / "images", "eps_255": 8.0}
    with pytest.raises(ValueError, match=r"b.png .* 6 x 5 pixels, not 12 x 9 \(resize_clean"):
        open_saved_images(folder / "results", **words).clean([0])
    found = open_saved_images(folder / "results", **words, resize_clean=True)
    image = Image.fromarray(large[0].transpose(1, 2, 0)).resize((5, 6))
    assert np.array_equal(found.clean([0])[0], np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,label", ["a.png,1"], "filename"),
        ("filename,class", ["a.png,1"], "label"),
        ("filename,label", ["a.png,cat"], "cat"),
        ("filename,label", ["a.png"], "class numbers"),
        ("filename,label", ["a.png,-1"], "-1"),
        ("filename,label", [f"a.png,{10**30}"], "class numbers"),
        ("filename,label", ["a.png,1000"], "1000"),
        ("filename,label,targeted_label", ["a.png,1,1.5"], "1.5"),
        ("filename,label", ["a.png,1", "a.png,1"], "more than once"),
        ("filename,label", ["z.png,1"], "z.png"),
        ("filename,label", ["../results/a.png,1"], "is not in"),
        ("filename,label", [""], "is not in"),
    ],
)
def test_wrong_csvs_are_refused(folder, header, rows, message):
    save_csv(folder / "results", header, rows)
    origin = UNKNOWN_ORIGIN.model_copy(update={"num_classes": 1000})
    with pytest.raises(ValueError, match=message):
        open_saved_images(folder / "results", eps_255=8.0, origin=origin)


def test_wrong_folders_are_refused(folder):
    results = folder / "results"
    with pytest.raises(ValueError, match=r"labels.csv"):
        open_saved_images(results, eps_255=8.0)
    with pytest.raises(ValueError, match="give eps_255"):
        open_saved_images(results)
    with pytest.raises(ValueError, match=r"manifest.json"):
        open_saved_images(folder / "absent", eps_255=8.0)
    save_csv(results)
    with pytest.raises(ValueError, match="absent is not a folder"):
        open_saved_images(results, eps_255=8.0, clean=folder / "absent")
    found = open_saved_images(results, eps_255=8.0)
    (results / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png cannot be read as an image"):
        found.adversarial([1])
    Image.new("RGB", (9, 9)).save(results / "a.png")
    with pytest.raises(ValueError, match="6 x 5 pixels, not 9 x 9"):
        found.adversarial([1])


def test_arrays_in_batches_and_in_either_order_of_axes(batches):
    _, changed = make_images(number=23)
    found = open_saved_images(batches, eps_255=8.0)
    assert np.array_equal(adversarial(found), changed)
    assert found.labels.tolist() == list(range(23)) and found.read_clean is None
    clean, changed = make_images()
    np.save(batches / "nchw.npy", changed)
    np.save(batches / "nhwc.npy", changed.transpose(0, 2, 3, 1))
    np.save(batches / "clean.npy", clean.transpose(0, 2, 3, 1))
    np.save(batches / "few.npy", np.array(LABELS, dtype=np.int32))
    for name in ("nchw.npy", "nhwc.npy"):
        words = {"clean": batches / "clean.npy", "labels": batches / "few.npy", "eps_255": 8.0}
        found = open_saved_images(batches / name, **words)
        assert np.array_equal(adversarial(found), changed)
        assert with_measured_budgets(found).breaches == ()


def archive():
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((2, 3, 4, 5), dtype=np.float32),
        np.zeros((2, 3, 4, 3), dtype=np.uint8),
        np.zeros((2, 1, 4, 4), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.uint8),
        np.array([{"a": 1}] * 2, dtype=object),
        *(b"", b"text", pickle.dumps([1]), b"\x93NUMPY", archive()),
    ],
    ids=str,
)
def test_files_that_hold_no_images_are_refused(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(b"" if isinstance(content, np.ndarray) else content)
    if isinstance(content, np.ndarray):
        np.save(tmp_path / "x.npy", content, allow_pickle=True)
    np.save(tmp_path / "labels.npy", np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match=r"x\.npy must"):
        open_saved_images(tmp_path / "x.npy", eps_255=8.0)


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(22),
        np.arange(23.0),
        np.array(["cat"] * 23),
        np.zeros((23, 1), dtype=np.int64),
        np.full(23, -1),
        np.array([None] * 23),
    ],
    ids=str,
)
def test_wrong_labels_of_arrays_are_refused(batches, labels):
    np.save(batches / "labels.npy", labels, allow_pickle=True)
    with pytest.raises(ValueError, match="labels"):
        open_saved_images(batches, eps_255=8.0)


def test_batches_that_do_not_fit_are_refused(batches):
    with pytest.raises(ValueError, match="resize_clean"):
        open_saved_images(batches, eps_255=8.0, resize_clean=True)
    np.save(batches / "few.npy", make_images()[0])
    with pytest.raises(ValueError, match=r"few.npy"):
        open_saved_images(batches, eps_255=8.0, clean=batches / "few.npy")
    (batches / "batch_3.npy").unlink()
    with pytest.raises(ValueError, match=r"batch_3.npy"):
        open_saved_images(batches, eps_255=8.0)
    np.save(batches / "batch_3.npy", make_images(number=2, height=7)[1])
    with pytest.raises(ValueError, match="one shape"):
        open_saved_images(batches, eps_255=8.0)
