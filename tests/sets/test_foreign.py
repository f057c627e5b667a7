"""Sets that other projects write: folders of images with a CSV, and arrays in batches."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from src.sets import (
    Breach,
    Origin,
    budget_breaches,
    open_set,
    read_array,
    read_folder,
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


def save_images(folder, images, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, names, strict=True):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / name)


def save_csv(folder, header="filename,label,targeted_label", rows=None):
    rows = rows or [f"{n},{y},{t}" for n, y, t in zip(NAMES, LABELS, TARGETS, strict=True)]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture
def images_root(tmp_path):
    """TransferAttack: `data/labels.csv`, `data/images/`, and a flat folder of results."""
    clean, adversarial = make_images()
    save_images(tmp_path / "data" / "images", clean)
    save_images(tmp_path / "results", adversarial)
    save_csv(tmp_path / "data")
    return tmp_path


@pytest.fixture
def batches(tmp_path):
    """TA-Bench: `batch_N.npy` and `labels.npy`; enough of them for 10 to follow 9."""
    _, adversarial = make_images(number=23)
    for number in range(12):
        np.save(tmp_path / f"batch_{number}.npy", adversarial[2 * number : 2 * number + 2])
    np.save(tmp_path / "labels.npy", np.arange(23))
    return tmp_path


def test_folder_of_images(images_root):
    clean, adversarial = make_images()
    origin = Origin(source="resnet50", attack="mifgsm", dataset="imagenet", num_classes=1000)
    found = open_set(
        images_root / "results", clean=images_root / "data" / "images", eps_255=8, origin=origin
    )
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.labels.tolist() == LABELS  # 0-based there, as here
    assert found.target_labels.tolist() == TARGETS
    assert np.array_equal(found.adversarial[0], adversarial)
    assert np.array_equal(found.clean, clean)
    assert (found.source, found.attack, found.budgets_255) == ("resnet50", "mifgsm", (8.0,))
    assert budget_breaches(found) == {8.0: 0}


def test_folder_without_clean_images_or_targets(images_root):
    save_csv(images_root / "results", "filename,label", ["c9,7", "a.png,2"])
    found = read_folder(images_root / "results", eps_255=8)
    assert found.labels.tolist() == [7, 2] and found.target_labels is None
    assert np.array_equal(found.adversarial[0], make_images()[1][[3, 1]])
    assert budget_breaches(found) is None
    named = read_folder(images_root / "results", images_root / "data" / "labels.csv", eps_255=8)
    assert named.labels.tolist() == LABELS
    assert named.digest != found.digest


def test_a_set_stored_by_floor_is_found_out(images_root):
    clean, _ = make_images()
    floored = ((clean / np.float32(255) - np.float32(8 / 255)) * 255).astype(np.uint8)
    save_images(images_root / "results", floored)
    found = open_set(images_root / "results", clean=images_root / "data" / "images", eps_255=8)
    assert budget_breaches(found) == {8.0: 4}
    measured = with_measured_budgets(found)
    assert (measured.budgets_255, measured.breaches) == ((9.0,), (Breach(8.0, 9.0, 4),))
    looser = open_set(images_root / "results", clean=images_root / "data" / "images", eps_255=9)
    assert budget_breaches(looser) == {9.0: 0}
    assert with_measured_budgets(looser).breaches == ()


def test_clean_images_of_another_size(images_root):
    large, _ = make_images(height=12, width=9)
    save_images(images_root / "data" / "images", large)
    places = {"clean": images_root / "data" / "images", "eps_255": 8}
    with pytest.raises(ValueError, match=r"b.png must have 6 x 5 pixels .* not 12 x 9 \(resize"):
        open_set(images_root / "results", **places)
    found = open_set(images_root / "results", **places, resize_clean=True)
    image = Image.fromarray(large[0].transpose(1, 2, 0)).resize((5, 6))
    assert np.array_equal(found.clean[0], np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,label", ["a.png,1"], r"lacks the column\(s\) filename"),
        ("filename,class", ["a.png,1"], r"lacks the column\(s\) label"),
        ("filename,label", ["a.png,cat"], "label='cat' of image 'a.png' is not a whole number"),
        ("filename,label", ["a.png"], "label='' of image 'a.png'"),
        ("filename,label", ["a.png,-1"], "label=.-1. of"),
        ("filename,label", [f"a.png,{10**30}"], "label=.10"),
        ("filename,label,targeted_label", ["a.png,1,1.5"], "targeted_label='1.5'"),
        ("filename,label", ["a.png,1", "a.png,1"], "more than once"),
        ("filename,label", ["z.png,1"], "the image 'z.png' is not in"),
        ("filename,label", ["../results/a.png,1"], "is not in"),
    ],
)
def test_wrong_csvs_are_refused(images_root, header, rows, message):
    save_csv(images_root / "results", header, rows)
    with pytest.raises(ValueError, match=message):
        open_set(images_root / "results", eps_255=8)


def test_labels_beyond_the_classes_are_refused(images_root):
    save_csv(images_root / "results")
    with pytest.raises(ValueError, match="label='999' of image 'c10.png'"):
        open_set(images_root / "results", eps_255=8, origin=Origin(num_classes=10))


def test_wrong_folders_are_refused(images_root):
    results = images_root / "results"
    with pytest.raises(ValueError, match=r"There is no .*results/labels.csv: give the CSV"):
        open_set(results, eps_255=8)
    with pytest.raises(ValueError, match="do not say their budget: give eps_255"):
        open_set(results)
    with pytest.raises(ValueError, match="eps_255 must be a number"):
        open_set(results, eps_255=-1)
    with pytest.raises(ValueError, match="norm=l7 is not one of linf, l2"):
        open_set(results, eps_255=8, origin=Origin(norm="l7"))
    with pytest.raises(ValueError, match=r"absent.csv is not a file"):
        open_set(results, eps_255=8, labels=images_root / "absent.csv")
    save_csv(results)
    with pytest.raises(ValueError, match="absent is not a folder of images"):
        open_set(results, eps_255=8, clean=images_root / "absent")
    (results / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png cannot be read as an image"):
        open_set(results, eps_255=8)
    Image.new("RGB", (9, 9)).save(results / "a.png")
    with pytest.raises(ValueError, match=r"a.png must have 6 x 5 pixels .* not 9 x 9"):
        open_set(results, eps_255=8)
    (results / "a.png").unlink()
    with pytest.raises(ValueError, match=r"the image 'a.png' is not in"):
        open_set(results, eps_255=8)


def test_batches_of_arrays(batches):
    _, adversarial = make_images(number=23)
    found = open_set(batches, eps_255=8)
    assert np.array_equal(found.adversarial[0], adversarial)
    assert found.labels.tolist() == list(range(23)) and found.clean is None


def test_one_array_in_either_order_of_axes(tmp_path):
    clean, adversarial = make_images()
    np.save(tmp_path / "nchw.npy", adversarial)
    np.save(tmp_path / "nhwc.npy", adversarial.transpose(0, 2, 3, 1))
    np.save(tmp_path / "clean.npy", clean.transpose(0, 2, 3, 1))
    np.save(tmp_path / "labels.npy", np.array(LABELS, dtype=np.int32))
    sets = [
        open_set(tmp_path / f"{axes}.npy", eps_255=8, clean=tmp_path / "clean.npy")
        for axes in ("nchw", "nhwc")
    ]
    for found in sets:
        assert isinstance(found.adversarial[0], np.memmap)
        assert np.array_equal(found.adversarial[0], adversarial)
        assert budget_breaches(found) == {8.0: 0}
    assert sets[0].digest == sets[1].digest
    given = read_array(
        tmp_path / "nchw.npy", np.array(LABELS), eps_255=8, target_labels=np.array(TARGETS)
    )
    assert given.target_labels.tolist() == TARGETS and given.digest != sets[0].digest


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 5), dtype=np.float32), "must hold uint8, grey levels 0..255, not fl"),
        (np.zeros((2, 3, 4, 3), dtype=np.uint8), r"the shape \(2, 3, 4, 3\) could be either"),
        (np.zeros((2, 1, 4, 4), dtype=np.uint8), r"the shape \(2, 1, 4, 4\) is neither"),
        (np.zeros((3, 4, 4), dtype=np.uint8), "is neither"),
        (np.zeros((0, 3, 4, 4), dtype=np.uint8), r"x\.npy"),
        (np.array([{"a": 1}], dtype=object), "nothing is ever unpickled"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    np.save(tmp_path / "labels.npy", np.zeros(len(array), dtype=np.int64))
    with pytest.raises(ValueError, match=message):
        open_set(tmp_path / "x.npy", eps_255=8)


def archive():
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), b"\x93NUMPY", archive()])
def test_files_that_are_no_arrays(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy must be a (whole )?\.npy file of"):
        open_set(tmp_path / "x.npy", eps_255=8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(22), "holds 22 labels for 23 images"),
        (np.arange(23.0), "one whole number an image, not float64"),
        (np.array(["cat"] * 23), "one whole number an image, not <U3"),
        (np.zeros((23, 1), dtype=np.int64), r"not int64 \(23, 1\)"),
        (np.full(23, -1), "labels hold -1"),
        (np.array([None] * 23), "nothing is ever unpickled"),
    ],
)
def test_wrong_labels_of_arrays_are_refused(batches, labels, message):
    np.save(batches / "labels.npy", labels, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        open_set(batches, eps_255=8)


def test_wrong_batches_are_refused(batches):
    with pytest.raises(ValueError, match="do not say their budget"):
        open_set(batches)
    with pytest.raises(ValueError, match="resize_clean cannot fit"):
        open_set(batches, eps_255=8, resize_clean=True)
    np.save(batches / "few.npy", make_images()[0])
    with pytest.raises(ValueError, match="The clean images must be uint8"):
        open_set(batches, eps_255=8, clean=batches / "few.npy")
    np.save(batches / "batch_3.npy", make_images(number=2, height=7)[1])
    with pytest.raises(ValueError, match=r"batch_3.npy holds images of shape \(3, 7, 5\)"):
        open_set(batches, eps_255=8)
    (batches / "batch_3.npy").unlink()
    with pytest.raises(ValueError, match=r"batch_3.npy does not exist, but batch_11.npy does"):
        open_set(batches, eps_255=8)
    (batches / "labels.npy").unlink()
    np.save(batches / "batch_3.npy", make_images(number=2)[1])
    with pytest.raises(ValueError, match=r"labels.npy does not exist"):
        open_set(batches, eps_255=8)


def test_places_without_any_set(tmp_path):
    with pytest.raises(ValueError, match="absent does not exist"):
        open_set(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("nothing")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match=r"must be a folder with a manifest.json, a .npy file"):
            open_set(place, eps_255=8)
