"""Images in class folders, and those that a CSV file lists."""

import os
from pathlib import Path

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_files import image_csv, image_folder, imagenet


def write_classes(folder: Path, classes: list[str], images: int = 2, start: int = 0) -> Path:
    """Write folders of small images; class c and image i have grey 10 c + i."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(images):
            grey = start + 10 * number + i
            Image.new("RGB", (4, 4), (grey,) * 3).save(folder / name / f"{i}.png")
    return folder


def greys(split, root):
    """Return the grey level of each image of a split."""
    return ImageDataset(image_folder(split, root=str(root)))[:].images[:, 0, 0, 0].tolist()


def test_splits_are_found_in_their_folders(tmp_path):
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


LEFT_BY_TOOLS = [
    *("@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/x/b.png", "lost+found/b.png", "._0.png"),
    *("$RECYCLE.BIN/b.png", ".cache/a/b.png", ".git/a/b/c.png", "Thumbs.db", ".DS_Store"),
]


def test_images_have_any_suffix_and_depth_and_what_tools_leave_is_skipped(tmp_path, caplog):
    root = write_classes(tmp_path / ".data" / "x", ["ant", "bee"])
    left = [f"{within}{name}" for name in LEFT_BY_TOOLS for within in ("", "ant/deep/")]
    for name in ("ant/A.JPG", "ant/b.jpeg", "ant/c.webp", "ant/deep/d.tiff", *left):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 50).save(root / name, "PNG")
    (root / "ant" / "notes.txt").write_bytes(b"no image")
    data = image_folder("test", root=str(root))
    assert (data.classes, [*data.targets]) == (["ant", "bee"], [0] * 6 + [1, 1])
    assert f"skipped, as left by tools ({len(left)}): " in caplog.text
    (root / "cow").mkdir()
    (tmp_path / "empty").mkdir()
    for folder, told in ((root, "class folders cow"), (tmp_path / "empty", "empty")):
        with pytest.raises(ValueError, match=told):
            image_folder("test", root=str(folder))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([*map(str, range(12))], [*map(str, range(12))]),
        (["-1", "1", "-10"], ["-10", "-1", "1"]),
        (["10", "9", "sky"], ["10", "9", "sky"]),
        (["a①", "a²", "b"], ["a²", "a①", "b"]),
        (["bus", "train"], ["bus", "train"]),  # the latter is no split
    ],
)
def test_folders_that_are_numbers_are_sorted_by_value(tmp_path, names, expected):
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
        ("train/cat test/images val/images", None),  # as in Tiny ImageNet
        ("train/cat train/dog test/Cat test/Dog", ["Cat", "Dog"]),
        ("train/cat test/cat test/eel", ["cat", "eel"]),
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
def test_some_of_imagenets_classes_keep_their_numbers(tmp_path, names, labels):
    data = image_folder("test", root=str(write_classes(tmp_path / "x", names, images=1)))
    dataset = ImageDataset(data, class_names="imagenet")
    assert dataset.labels.tolist() == labels and dataset.num_classes == 1000


def test_classes_that_imagenet_lacks_are_refused(tmp_path):
    for names, told in (["1", "1000"], "1000"), (["-1", "5"], "-1"), (["n00000001"], "n00000001"):
        root = str(write_classes(tmp_path / told, names, images=1))
        with pytest.raises(ValueError, match=f"class_names=imagenet needs .* not {told}"):
            ImageDataset(image_folder("test", root=root), class_names="imagenet")
    assert imagenet("test", root=root).classes == names
    with pytest.raises(ValueError, match=r"class folder -1 .* WordNet id"):
        imagenet("test", root=str(tmp_path / "-1"))


HEADER = "ImageId,TrueLabel,TargetClass\n"


def write_root(folder, content, csv="images.csv", images="images"):
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("x1.png", "x2.png", "x2.jpg", "x3.jpg")):
        Image.new("RGB", (5, 5), (10 * number,) * 3).save(folder / images / name)
    (folder / csv).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


NAMED = {"id_column": "file", "label_column": "class"}
BARE = {"id_column": 0, "label_column": 1}
EVERY = ("n00007846", "n04067472", "n03444034", "n09999999")
OWN = tuple(f"k{number}" for number in range(1000))
KAGGLE = "ImageId,PredictionString\nx1,n01751748 85 1 49 72 \nx3,n15075141 1 0 9 9 n15075141 2 "
TINY = "x1.png\tn03444034\t0\t32\nx3.jpg\tn00007846\t1\t2\nx2.png\tn04067472\t1\t2"
IDS = f"{HEADER}x1,n01751748,n15075141\nx3,n01443537,n01751748\n"
MIXED = (f"{HEADER}x1,n01751748,1000\nx3,n01443537,66", f"{HEADER}x1,66,n15075141\nx3,2,n01751748")
NUMBERED = [
    # The separator is sniffed.
    ("ImageId ; TrueLabel ; Licence\n x1 ; 3 ; by, as is\nx2.jpg ;1; by\n", {}, None, 3, [2, 0]),
    ('"ImageId";"TrueLabel"\n"x1";"3"\n"x2.jpg";"1"\n', {}, None, 3, [2, 0]),
    ("ImageId TrueLabel\nx1 3\nx2.jpg  1\n", {}, None, 3, [2, 0]),
    ("file,class\nx1,0\nx3,9\n", {**NAMED, "first_label": 0}, None, 10, [0, 9]),
    ("x1.png 65\nx3.jpg 970\n", {**BARE, "first_label": 0}, None, 971, [65, 970]),
    (KAGGLE, {"label_column": "PredictionString"}, "imagenet", 1000, [65, 999]),
    # Tiny ImageNet's layout: ids are numbered by their own order, or among all.
    (TINY, BARE, None, 3, [1, 0, 2]),
    (TINY, BARE, EVERY, 4, [2, 0, 1]),
    (IDS, {}, None, 3, [1, 0], [2, 1]),
    # Ids beside numbers, and ids of networks with 1,000 classes, are those of ImageNet.
    *[
        (content, {}, names, 1000, [65, 1], [999, 65])
        for content in (IDS, *MIXED)
        for names in ("imagenet", None, OWN)
    ],
]


def test_wordnet_ids_and_numbers_become_labels(tmp_path):
    for number, (content, columns, names, count, labels, *targets) in enumerate(NUMBERED):
        data = image_csv("test", root=write_root(tmp_path / str(number), content), **columns)
        dataset = ImageDataset(data, class_names=names, num_classes=count)
        assert dataset.labels.tolist() == labels and dataset.num_classes == count
        if targets:
            assert dataset.target_labels.tolist() == targets[0]
        else:
            assert dataset.target_labels is None


REFUSED = [
    (HEADER, r"images\.csv"),
    (f"{HEADER}x2,1,1", r"'x2' may be x2\.jpg and x2\.png"),
    (f"{HEADER}x1,cat,1", "TrueLabel='cat' of image 'x1'"),
    (f"{HEADER}x1,0,1", "TrueLabel='0' of image 'x1' is below dataset.first_label=1"),
    (f"{HEADER}x1,1,1\nx1.png,2,1", "'x1.png' is listed twice"),
    (f"{HEADER}../images/x1,1,1", r"'\.\./images/x1'"),
    ("id,TrueLabel\nx1,1", r"dataset\.id_column=ImageId\. .* id, TrueLabel"),
    (f"{HEADER}x1,n01751748,1\nx3,,1", "TrueLabel='' of image 'x3'"),
    (f"{HEADER}x1,1,1\nx3,n01751748,1\nx2.png,1,1", "TrueLabel='n01751748' of image 'x3'"),
    ('ImageId,TrueLabel\n"=HYPERLINK(""x""),\n../1",2\n', r'\'=HYPERLINK\("x"\),\\n../1\''),
    (TINY, r"class_names=imagenet .* not n00007846"),
]


def test_wrong_files_are_refused(tmp_path):
    for content, message in REFUSED:
        columns, names = (BARE, "imagenet") if content == TINY else ({}, None)
        with pytest.raises(ValueError, match=message) as caught:
            root = write_root(tmp_path, content)
            ImageDataset(image_csv("test", root=root, **columns), class_names=names)
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_list_that_is_missing_or_a_pipe_is_refused(tmp_path):
    path = tmp_path / "images.csv"
    for make in (lambda _: None, os.mkfifo):
        make(path)
        with pytest.raises(ValueError, match=r"images\.csv .* not a file"):
            image_csv("test", root=str(tmp_path))
