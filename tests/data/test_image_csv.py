"""Images listed in a CSV."""

import os

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_files import image_csv

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
