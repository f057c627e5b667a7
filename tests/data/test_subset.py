"""The fixed, class-balanced subset."""

import os
from functools import partial

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset, LabelledImages, balanced_subset, load_dataset
from src.utils.files import write_csv

TARGET = "src.data.image_files.image_folder"

LABELS = np.repeat(np.arange(7, dtype=np.int64), [30, 2, 20, 50, 40, 33, 25])


def test_every_class_gets_floor_or_ceil_as_far_as_it_has_them():
    labels = np.tile(np.arange(7, dtype=np.int64), 20)
    for n_images in range(1, 140):
        counts = np.bincount(labels[balanced_subset(labels, n_images, seed=3)], minlength=7)
        assert counts.sum() == n_images
        assert set(counts) <= {n_images // 7, -(-n_images // 7)}
    counts = np.bincount(LABELS[balanced_subset(LABELS, 62)])
    assert counts.tolist() == [10, 2, 10, 10, 10, 10, 10]


def test_subsets_are_nested_and_their_order_deals_one_image_of_each_class_in_turn():
    most = balanced_subset(LABELS, 200, seed=1)
    for n_images in range(1, 201, 3):
        assert np.array_equal(balanced_subset(LABELS, n_images, seed=1), most[:n_images])
    assert len({*LABELS[most[:7]]}) == len({*LABELS[most[7:14]]}) == 7
    assert sorted(balanced_subset(LABELS, None)) == [*range(200)] == sorted(most)


def test_the_choice_depends_on_the_seed_alone_in_every_version():
    state = np.random.get_state()[1].copy()
    first = balanced_subset(LABELS, 50, 0)
    assert not np.array_equal(first, balanced_subset(LABELS, 50, 1))
    assert np.array_equal(state, np.random.get_state()[1])
    labels = np.tile(np.arange(3, dtype=np.int64), 10)
    assert balanced_subset(labels, 6, seed=0).tolist() == [2, 24, 28, 26, 27, 13]


@pytest.mark.parametrize("n_images", [0, -1, 201])
def test_wrong_n_images_is_refused(n_images):
    with pytest.raises(ValueError, match=f"n_images={n_images!r}"):
        balanced_subset(LABELS, n_images)


@pytest.fixture
def listed(tmp_path):
    """A function that writes a list of images, and opens those of a small folder that it names."""
    root = tmp_path / "images"
    for number in range(6):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
    path = tmp_path / "list.csv"

    def make(text: str | None = None, **words) -> ImageDataset:
        if text is not None:
            path.write_text(text)
            words["images"] = str(path)
        return load_dataset("test", {"_target_": TARGET, "root": str(root)}, **words)

    return make


def test_a_list_brings_the_same_images(listed):
    chosen = listed(n_images=4, seed=3)
    again = listed(chosen.listed().sample(frac=1, random_state=0).to_csv())
    assert again.indices.tolist() == chosen.indices.tolist() and again.digest() == chosen.digest()
    files = [f"{'ab'[number % 2]}/{number}.png" for number in range(6)]
    assert {*again.listed()["file"]} < {*files}
    assert sorted(listed().listed()["file"]) == sorted(files)
    bare = chosen.listed().assign(file=lambda rows: rows["file"].str[2:])  # an earlier version's
    assert listed(bare.to_csv()).digest() == chosen.digest()
    assert listed("index,label\n5,1\n0,0\n").indices.tolist() == [0, 5]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("index,label\n9,0\n", "a missing one"),
        ("index,label\n0,0\n0,0\n", "twice"),
        ("index,label\n", "lists no images"),
        ("index,label\n0,1\n", "image 0 has another label"),
        ("index,label,file\n0,0,4.png\n", "image 0 is another file"),
        ("number\n0\n", "the column index"),
    ],
)
def test_a_list_of_other_images_is_refused(listed, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        listed(text)


def test_a_list_stands_alone(listed):
    with pytest.raises(ValueError, match="n_images=null"):
        listed("index,label\n0,0\n", n_images=1)


def test_a_list_of_files_is_none_of_arrays(tmp_path):
    (tmp_path / "list.csv").write_text("index,label,file\n1,1,b.png\n")
    data = LabelledImages(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ("a", "b"))
    with pytest.raises(ValueError, match="image 1 is another file"):
        ImageDataset(data, images=str(tmp_path / "list.csv"))


@pytest.mark.parametrize("name", ["=1.png", os.fsdecode(b"caf\xe9.png")])  # a formula; no text
def test_a_written_list_finds_files_of_any_name(tmp_path, name):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / name)
    open_images = partial(load_dataset, "test", {"_target_": TARGET, "root": f"{tmp_path}/images"})
    write_csv(tmp_path / "list.csv", open_images().listed())
    assert len(open_images(images=str(tmp_path / "list.csv"))) == 1
