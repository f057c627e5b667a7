"""The fixed, class-balanced subset."""

import os

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset, LabelledImages, balanced_subset, load_dataset
from src.utils.files import write_csv

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
    for wrong in (0, -1, 201):
        with pytest.raises(ValueError, match=f"n_images={wrong}"):
            balanced_subset(LABELS, wrong)


def test_the_choice_depends_on_the_seed_alone_in_every_version():
    state = np.random.get_state()[1].copy()
    first = balanced_subset(LABELS, 50, 0)
    assert not np.array_equal(first, balanced_subset(LABELS, 50, 1))
    assert np.array_equal(state, np.random.get_state()[1])
    labels = np.tile(np.arange(3, dtype=np.int64), 10)
    assert balanced_subset(labels, 6, seed=0).tolist() == [2, 24, 28, 26, 27, 13]


FILES = ["a/0.png", "b/1.png", "a/=2.png", os.fsdecode(b"b/caf\xe9.png")]  # a formula; no text


@pytest.fixture
def listed(tmp_path):
    """A function that writes a list of images, and opens those of a small folder that it names."""
    root = tmp_path / "images"
    for number, name in enumerate(FILES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(root / name)
    source = {"_target_": "src.data.image_files.image_folder", "root": str(root)}

    def make(text: str | None = None, **words) -> ImageDataset:
        if text is not None:
            (tmp_path / "list.csv").write_text(text)
            words["images"] = str(tmp_path / "list.csv")
        return load_dataset("test", source, **words)

    return make


def test_a_list_brings_the_same_images(listed, tmp_path):
    """In any order, by an earlier version without folders, and with odd names."""
    chosen = listed(n_images=3, seed=3)
    rows = chosen.listed().sample(frac=1, random_state=0)
    for names in (rows["file"], rows["file"].str[2:]):
        assert listed(rows.assign(file=names).to_csv()).digest() == chosen.digest()
    write_csv(tmp_path / "list.csv", listed().listed())
    assert len(listed(images=str(tmp_path / "list.csv"))) == 4


def test_a_list_of_other_images_is_refused(listed, tmp_path):
    for text, sentence in (
        ("index,label\n9,0\n", "a missing one"),
        ("index,label\n0,0\n0,0\n", "twice"),
        ("index,label\n", "lists no images"),
        ("index,label\n0,1\n", "image 0 has another label"),
        ("index,label,file\n0,0,4.png\n", "image 0 is another file"),
        ("number\n0\n", "the column index"),
    ):
        with pytest.raises(ValueError, match=sentence):
            listed(text)
    with pytest.raises(ValueError, match="n_images=null"):
        listed("index,label\n0,0\n", n_images=1)
    (tmp_path / "list.csv").write_text("index,label,file\n1,1,b.png\n")
    data = LabelledImages(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ("a", "b"))
    with pytest.raises(ValueError, match="image 1 is another file"):
        ImageDataset(data, images=str(tmp_path / "list.csv"))
