"""Images listed in a CSV."""

import numpy as np
import pytest
from PIL import Image

from src.data import ImageDataset
from src.data.image_csv import image_csv

ROWS = [("x2", "3", "1"), ("x1", "1", "2"), ("x3.jpg", "2", "3")]


def write_root(folder, rows=ROWS, header="ImageId,TrueLabel,TargetClass,License"):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("x1.png", "x2.png", "x2.jpg", "x3.jpg")):
        Image.new("RGB", (5, 5), (10 * number,) * 3).save(folder / "images" / name)
    lines = [header, *(",".join([*row, '"CC-BY, as is"']) for row in rows)]
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_become_zero_based_labels(tmp_path, encoding):
    root = write_root(tmp_path)
    text = (tmp_path / "images.csv").read_text()
    (tmp_path / "images.csv").write_text(text, encoding=encoding)
    dataset = ImageDataset(image_csv("test", root=root))
    assert dataset.labels.tolist() == [2, 0, 1]
    assert dataset.target_labels.tolist() == [0, 1, 2]
    # PNG goes before JPEG where an id without suffix fits both.
    assert [int(dataset[i][0][0, 0, 0]) for i in range(3)] == [10, 0, 30]


def test_other_names_and_zero_based_labels(tmp_path):
    write_root(tmp_path, [("x1", "0", ""), ("x3", "9", "")], "file,class,nothing,License")
    (tmp_path / "images.csv").rename(tmp_path / "list.csv")
    (tmp_path / "images").rename(tmp_path / "pictures")
    names = {"csv": "list.csv", "images": "pictures", "id_column": "file", "label_column": "class"}
    data = image_csv("test", root=str(tmp_path), **names, first_label=0)
    assert data.targets.tolist() == [0, 9]
    assert data.target_labels is None
    assert ImageDataset(data).num_classes == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"images\.csv"),
        ([("x1", "cat", "1")], "TrueLabel='cat' of image 'x1'"),
        ([("x1", "1", "")], "TargetClass='' of image 'x1'"),
        ([("x1", "0", "1")], "TrueLabel='0'"),
        ([("x1", "9" * 30, "1")], "TrueLabel='9+'"),
        ([("x1", "1", "1" * 140_000)], r"images\.csv"),
        ([("x1", "1", "1"), ("x9", "1", "1")], "'x9'"),
        ([("../images/x1", "1", "1")], r"'\.\./images/x1'"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message) as caught:
        image_csv("test", root=write_root(tmp_path, rows))
    assert len(str(caught.value)) < 1000


def test_wrong_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images\.csv"):
        image_csv("test", root=str(tmp_path))
    root = write_root(tmp_path, header="id,TrueLabel,TargetClass,License")
    with pytest.raises(ValueError, match="ImageId"):
        image_csv("test", root=root)
    with pytest.raises(ValueError, match=r"weights=PATH"):
        image_csv("train", root=root)
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"images\.csv"):
        image_csv("test", root=root)


@pytest.mark.realdata
def test_nips_2017_images(real_data, tmp_path):
    root = str(real_data / "imagenet-nips2017-250.tar")
    data = image_csv("test", root=root, cache_dir=str(tmp_path))
    dataset = ImageDataset(data, n_images=4, image_size=224, num_classes=1000)
    assert not np.array_equal(dataset.labels, dataset.target_labels)
    assert dataset.__getitems__(range(4)).images.shape == (4, 3, 224, 224)
