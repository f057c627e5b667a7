"""Class folders and their splits."""

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_files import image_folder


def greys(split, root, **options):
    """Return the grey level of each image of a split."""
    dataset = ImageDataset(image_folder(split, root=str(root), **options))
    return dataset[:].images[:, 0, 0, 0].tolist()


@pytest.fixture
def both(tmp_path, write_classes):
    write_classes(tmp_path / "both" / "train", ["cat", "ant"], images=3, start=100)
    write_classes(tmp_path / "both" / "test", ["cat", "ant"])
    return tmp_path / "both"


TEST, TRAIN = [10, 11, 0, 1], [110, 111, 112, 100, 101, 102]


def test_classes_and_files_are_sorted(both, write_classes):
    data = image_folder("test", root=str(both))
    assert (data.classes, [*data.targets]) == (["ant", "cat"], [0, 0, 1, 1])
    assert greys("test", both) == greys("test", both / "test") == TEST
    assert greys("train", both) == TRAIN
    (both / "test").rename(both / "val")  # which is the test split where there is no test
    assert greys("test", both) == TEST
    write_classes(both / "test", ["ant", "cat"], start=200)
    assert greys("test", both) == [200, 201, 210, 211]


def test_a_class_called_train_is_a_class(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["bus", "train"])
    assert image_folder("test", root=str(root)).classes == ["bus", "train"]


def test_a_missing_split_is_refused(both):
    (both / "train").rename(both.parent / "train")
    with pytest.raises(ValueError, match="train split"):
        image_folder("train", root=str(both))
    (both / "test").rename(both / "train")
    with pytest.raises(ValueError, match="test split"):
        image_folder("test", root=str(both))


def test_suffixes_and_depth(tmp_path, write_classes):
    root = write_classes(tmp_path / "x", ["ant", "bee"], images=1)
    for name in ("A.JPG", "b.jpeg", "c.webp", "deep/d.tiff"):
        (root / "ant" / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 50).save(root / "ant" / name)
    (root / "ant" / "notes.txt").write_bytes(b"no image")
    assert [*image_folder("test", root=str(root)).targets] == [0] * 5 + [1]
    (root / "cow").mkdir()
    with pytest.raises(ValueError, match="class folders cow"):
        image_folder("test", root=str(root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        image_folder("test", root=str(tmp_path / "empty"))


LEFT_BY_TOOLS = [
    *("@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/x/b.png", "lost+found/b.png", "._0.png"),
    *("$RECYCLE.BIN/b.png", ".cache/a/b.png", ".git/a/b/c.png", "Thumbs.db", ".DS_Store"),
]


@pytest.mark.parametrize("within", ["", "ant/", "ant/deep/"])
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
    assert f"x: skipped, as left by tools ({len(LEFT_BY_TOOLS)}): " in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([*map(str, range(12))], [*map(str, range(12))]),
        ([*map(str, range(1, 11))], [*map(str, range(1, 11))]),
        ([f"{n:03}" for n in range(1, 11)], [f"{n:03}" for n in range(1, 11)]),
        (["100", "9", "20"], ["9", "20", "100"]),
        (["-1", "1", "-10"], ["-10", "-1", "1"]),
        (["10", "9", "sky"], ["10", "9", "sky"]),
        (["a①", "a²", "b"], ["a²", "a①", "b"]),
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
        ("test/part1 test/part2", ["part1", "part2"]),
        ("train/deep cat test2", ["cat", "test2", "train"]),
    ],
)
def test_a_test_split_has_classes_of_the_training_split(tmp_path, caplog, folders, chosen):
    for name in folders.split():
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (4, 4), 50).save(tmp_path / name / "0.png")
    if chosen:
        assert image_folder("test", root=str(tmp_path)).classes == chosen
        assert ("val/ is attacked" in caplog.text) == ("val" in folders)
    else:
        with pytest.raises(ValueError, match=r"/ has no labels: .* dataset=image_csv"):
            image_folder("test", root=str(tmp_path))
