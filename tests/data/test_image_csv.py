"""Images listed in a CSV."""

import os
from pathlib import Path

import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_files import image_csv

HEADER = "ImageId,TrueLabel,TargetClass\n"


def write_root(folder, content, csv="images.csv", images="images"):
    (folder / images).mkdir()
    for number, name in enumerate(("x1.png", "x2.png", "x2.jpg", "x3.jpg")):
        Image.new("RGB", (5, 5), (10 * number,) * 3).save(folder / images / name)
    if content is not None:
        (folder / csv).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_become_zero_based_labels(tmp_path, encoding):
    rows = 'ImageId,TrueLabel,TargetClass,Licence\nx2.png,3,1,"by, as is"\nx1,1,2,\nx3.jpg,2,3,\n'
    dataset = ImageDataset(image_csv("test", root=write_root(tmp_path, rows.encode(encoding))))
    assert dataset.labels.tolist() == [2, 0, 1]
    assert dataset.listed()["file"].tolist() == ["x2.png", "x1.png", "x3.jpg"]
    assert dataset.target_labels.tolist() == [0, 1, 2]
    assert dataset[:3].images[:, 0, 0, 0].tolist() == [10, 0, 30]


def test_other_names_and_zero_based_labels(tmp_path):
    root = write_root(tmp_path, "file,class\nx1,0\nx3,9\n", "list.csv", "pictures")
    names = {"csv": "list.csv", "folder": "pictures", "id_column": "file", "label_column": "class"}
    data = image_csv("test", root=root, **names, first_label=0)
    assert data.targets.tolist() == [0, 9] and data.target_labels is None
    assert ImageDataset(data).num_classes == 10


@pytest.mark.parametrize(
    "content",
    [
        "ImageId;TrueLabel\nx1;3\nx2.jpg;1\n",
        "ImageId ; TrueLabel ; Licence\n x1 ; 3 ; by, as is\nx2.jpg ;1; by\n",
        '"ImageId";"TrueLabel"\n"x1";"3"\n"x2.jpg";"1"\n',
        "ImageId TrueLabel\nx1 3\nx2.jpg  1\n",
    ],
)
def test_separators_are_sniffed(tmp_path, content):
    data = image_csv("test", root=write_root(tmp_path, content))
    assert [path.name for path in data.images] == ["x1.png", "x2.jpg"]
    assert data.targets.tolist() == [2, 0]


def test_a_list_without_a_header_and_lists_of_wordnet_ids(tmp_path):
    root = write_root(tmp_path, "x1.png 65\nx3.jpg 970\n", "val.txt")
    columns = {"id_column": 0, "label_column": 1, "first_label": 0}
    assert image_csv("test", root=root, csv="val.txt", **columns).targets.tolist() == [65, 970]
    kaggle = "ImageId,PredictionString\nx1,n01751748 85 1 49 72 \nx3,n15075141 1 0 9 9 n15075141 2 "
    (tmp_path / "val.csv").write_text(kaggle)
    data = image_csv("test", root=root, csv="val.csv", label_column="PredictionString")
    assert ImageDataset(data, class_names="imagenet").labels.tolist() == [65, 999]


def test_wordnet_ids_are_numbered_by_their_own_order_or_among_all(tmp_path):
    """In the layout of Tiny ImageNet, some of whose classes ImageNet-1k lacks."""
    lines = ["x1.png\tn03444034\t0\t32\t44\t62", "x3.jpg\tn00007846\t1\t2\t3\t4"]
    lines = [*lines, "x2.png\tn04067472\t1\t2\t3\t4"]
    root = write_root(tmp_path, "\n".join(lines), "val_annotations.txt")
    columns = {"id_column": 0, "label_column": 1, "csv": "val_annotations.txt"}
    data = image_csv("test", root=root, **columns)
    assert ImageDataset(data, num_classes=3).labels.tolist() == [1, 0, 2]
    every = ["n00007846", "n04067472", "n03444034", "n09999999"]
    assert ImageDataset(data, class_names=every).labels.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"class_names=imagenet .* not n00007846"):
        ImageDataset(data, class_names="imagenet")


def test_target_labels_are_numbered_as_labels(tmp_path):
    root = write_root(tmp_path, f"{HEADER}x1,n01751748,n15075141\nx3,n01443537,n01751748\n")
    data = image_csv("test", root=root)
    for names, labels, targets in ((None, [1, 0], [2, 1]), ("imagenet", [65, 1], [999, 65])):
        dataset = ImageDataset(data, class_names=names)
        assert dataset.labels.tolist() == labels
        assert dataset.target_labels.tolist() == targets


def test_ids_beside_numbers_and_ids_of_networks_with_1000_classes_are_those_of_imagenet(tmp_path):
    own = [f"k{number}" for number in range(1000)]
    for rows in ("x1,n01751748,1000\nx3,n01443537,66", "x1,66,n15075141\nx3,2,n01751748"):
        (tmp_path / rows[:6]).mkdir()
        data = image_csv("test", root=write_root(tmp_path / rows[:6], HEADER + rows))
        for names in ("imagenet", None, own):
            dataset = ImageDataset(data, class_names=names, num_classes=1000)
            assert dataset.labels.tolist() == [65, 1]
            assert dataset.target_labels.tolist() == [999, 65]
    root = write_root(tmp_path, "ImageId,TrueLabel\nx1,n01751748\nx3,n01443537")
    for names in (None, own):
        dataset = ImageDataset(image_csv("test", root=root), class_names=names, num_classes=1000)
        assert (dataset.labels.tolist(), dataset.num_classes) == ([65, 1], 1000)


def test_formulas_and_quotes_are_text(tmp_path):
    name = '=HYPERLINK("x"),\n../1'
    root = write_root(tmp_path, 'ImageId,TrueLabel\n"=HYPERLINK(""x""),\n../1",2\n')
    with pytest.raises(ValueError, match="is not in") as caught:
        image_csv("test", root=root)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER, r"images\.csv"),
        (f"{HEADER}x2,1,1", r"'x2' may be x2\.jpg and x2\.png"),
        (f"{HEADER}x1,cat,1", "TrueLabel='cat' of image 'x1'"),
        (f"{HEADER}x1,0,1", "TrueLabel='0' of image 'x1' is below dataset.first_label=1"),
        (f"{HEADER}x1,1,1\nx9,1,1", "'x9'"),
        (f"{HEADER}x1,1,1\nx1.png,2,1", "'x1.png' is listed twice"),
        (f"{HEADER}../images/x1,1,1", r"'\.\./images/x1'"),
        ("id,TrueLabel\nx1,1", r"lacks dataset\.id_column=ImageId. Its columns are id, TrueLabel"),
        (f"{HEADER}x1,n01751748,1\nx3,,1", "TrueLabel='' of image 'x3'"),
        (f"{HEADER}x1,1,1\nx3,n01751748,1\nx2.png,1,1", "TrueLabel='n01751748' of image 'x3'"),
        (None, r"images\.csv"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        ImageDataset(image_csv("test", root=write_root(tmp_path, content)))
    assert len(str(caught.value)) < 1000


def test_a_list_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(Path(write_root(tmp_path, None)) / "images.csv")
    with pytest.raises(ValueError, match="not a file"):
        image_csv("test", root=str(tmp_path))
