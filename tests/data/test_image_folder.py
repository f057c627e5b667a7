"""Class folders and their splits."""

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_files import image_folder, imagenet


def greys(split, root):
    """Return the grey level of each image of a split."""
    return ImageDataset(image_folder(split, root=str(root)))[:].images[:, 0, 0, 0].tolist()


def test_splits_are_found_in_their_folders(tmp_path, write_classes):
    both, alone = tmp_path / "both", tmp_path / "alone"
    for start, split in enumerate(("train", "val", "test")):
        write_classes(both / split, ["cat", "ant"], start=100 * start)
    assert greys("train", both) == [10, 11, 0, 1]
    assert greys("test", both) == greys("test", both / "test") == [210, 211, 200, 201]
    alone.mkdir()
    for split, other in (("train", "test"), ("test", "train")):
        (both / other).rename(alone / other)
        with pytest.raises(ValueError, match=f"{split} split"):
            image_folder(split, root=str(alone))
        (alone / other).rename(both / other)


def test_suffixes_and_depth(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["ant", "bee"], images=1)
    for name in ("A.JPG", "b.jpeg", "c.webp", "deep/d.tiff"):
        (root / "ant" / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 50).save(root / "ant" / name)
    (root / "ant" / "notes.txt").write_bytes(b"no image")
    assert [*image_folder("test", root=str(root)).targets] == [0] * 5 + [1]
    (root / "cow").mkdir()
    (tmp_path / "empty").mkdir()
    for folder, told in ((root, "class folders cow"), (tmp_path / "empty", "empty")):
        with pytest.raises(ValueError, match=told):
            image_folder("test", root=str(folder))


LEFT_BY_TOOLS = [
    *("@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/x/b.png", "lost+found/b.png", "._0.png"),
    *("$RECYCLE.BIN/b.png", ".cache/a/b.png", ".git/a/b/c.png", "Thumbs.db", ".DS_Store"),
]


@pytest.mark.parametrize("within", ["", "ant/deep/"])
def test_what_tools_leave_is_skipped_and_counted(tmp_path, write_classes, caplog, within):
    root = write_classes(tmp_path / ".data" / "x", ["ant", "bee"])
    (root / "ant" / "deep").mkdir()
    Image.new("L", (4, 4), 50).save(root / "ant" / "deep" / "a.png")
    for name in LEFT_BY_TOOLS:
        path = root / within / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 50).save(path, "PNG")
    data = image_folder("test", root=str(root))
    assert (data.classes, [*data.targets]) == (["ant", "bee"], [0, 0, 0, 1, 1])
    assert f"skipped, as left by tools ({len(LEFT_BY_TOOLS)}): " in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([*map(str, range(12))], [*map(str, range(12))]),
        ([f"{n:03}" for n in range(1, 11)], [f"{n:03}" for n in range(1, 11)]),
        (["-1", "1", "-10"], ["-10", "-1", "1"]),
        (["10", "9", "sky"], ["10", "9", "sky"]),
        (["a①", "a²", "b"], ["a²", "a①", "b"]),
        (["bus", "train"], ["bus", "train"]),  # the latter is no split
    ],
)
def test_folders_that_are_numbers_are_sorted_by_value(tmp_path, write_classes, names, expected):
    root = write_classes(tmp_path / "x", names, images=1)
    dataset = ImageDataset(image_folder("test", root=str(root)))
    assert dataset.class_names == tuple(expected)
    folders = [names[grey // 10] for grey in dataset[:].images[:, 0, 0, 0].tolist()]
    assert [expected[label] for label in dataset.labels] == folders


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        ("train/cat train/dog test/part1 test/part2", None),
        ("train/cat train/dog test/part1 test/part2 val/dog", ["dog"]),
        ("train/cat train/dog test test/@eaDir val/dog", ["dog"]),
        ("train/cat test/images val/images", None),  # as in Tiny ImageNet
        ("train/cat train/dog test/Cat test/Dog", ["Cat", "Dog"]),
        ("train/cat test/cat test/eel", ["cat", "eel"]),
        ("train/deep cat test2", ["cat", "test2", "train"]),
    ],
)
def test_a_test_split_has_classes_of_the_training_split(tmp_path, caplog, folders, chosen):
    for name in folders.split():
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (4, 4), 50).save(tmp_path / name / "0.png")
    if chosen is None:
        with pytest.raises(ValueError, match=r"/ has no labels: .* dataset=image_csv"):
            image_folder("test", root=str(tmp_path))
        return
    assert image_folder("test", root=str(tmp_path)).classes == chosen
    assert ("val/ is attacked" in caplog.text) == ("val" in folders)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["n02102040", "n01440764"], [0, 217]),
        (["tench", "English springer"], [217, 0]),
        (["10", "9", "999"], [10, 9, 999]),
        (["0007", "0010"], [7, 10]),
    ],
)
def test_some_of_imagenets_classes_keep_their_numbers(tmp_path, write_classes, names, labels):
    data = image_folder("test", root=str(write_classes(tmp_path / "x", names, images=1)))
    dataset = ImageDataset(data, class_names="imagenet")
    assert dataset.labels.tolist() == labels and dataset.num_classes == 1000


def test_classes_that_imagenet_lacks_are_refused(tmp_path, write_classes):
    for names, told in (["1", "1000"], "1000"), (["-1", "5"], "-1"), (["n00000001"], "n00000001"):
        root = str(write_classes(tmp_path / told, names, images=1))
        with pytest.raises(ValueError, match=f"class_names=imagenet needs .* not {told}"):
            ImageDataset(image_folder("test", root=root), class_names="imagenet")
    assert imagenet("test", root=root).classes == names
    with pytest.raises(ValueError, match=r"class folder -1 .* WordNet id"):
        imagenet("test", root=str(tmp_path / "-1"))
