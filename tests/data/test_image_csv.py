"""Images listed in a CSV."""

import tarfile

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


def test_rows_become_zero_based_records(tmp_path):
    records = image_csv("test", root=write_root(tmp_path), num_classes=3)
    assert records.labels.tolist() == [2, 0, 1]
    assert records.target_labels.tolist() == [0, 1, 2]
    assert records.class_names == ("1", "2", "3")
    # PNG goes before JPEG where an id without suffix fits both.
    assert [int(records.read(i)[0, 0, 0]) for i in range(3)] == [10, 0, 30]
    assert records.content(1) == (tmp_path / "images" / "x1.png").read_bytes()


def test_tar_gives_the_same_data_set(tmp_path):
    root = write_root(tmp_path / "x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(root, arcname=".")
    digests = {
        ImageDataset(image_csv("test", root=str(place))).digest()
        for place in (root, tmp_path / "x.tar")
    }
    assert len(digests) == 1


def test_other_names_and_zero_based_labels(tmp_path):
    write_root(tmp_path, [("x1", "0", ""), ("x3", "9", "")], "file,class,nothing,License")
    (tmp_path / "images").rename(tmp_path / "pictures")
    (tmp_path / "images.csv").rename(tmp_path / "list.csv")
    records = image_csv(
        "test",
        root=str(tmp_path),
        csv="list.csv",
        images="pictures",
        id_column="file",
        label_column="class",
        first_label=0,
        num_classes=None,
    )
    assert records.labels.tolist() == [0, 9]
    assert records.target_labels is None
    assert len(records.class_names) == 10


def test_images_beside_the_csv(tmp_path):
    write_root(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    assert len(image_csv("test", root=str(tmp_path), images=".")) == 3


def test_byte_order_mark_is_accepted(tmp_path):
    root = write_root(tmp_path)
    text = (tmp_path / "images.csv").read_text()
    (tmp_path / "images.csv").write_text(text, encoding="utf-8-sig")
    assert len(image_csv("test", root=root)) == 3


def test_there_is_no_training_split(tmp_path):
    with pytest.raises(ValueError, match=r"no training split: give model.NAME.weights"):
        image_csv("train", root=write_root(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "images.csv lists no images"),
        ([("x1", "cat", "1")], "TrueLabel='cat' of image 'x1' is not a whole number"),
        ([("x1", "1.0", "1")], "TrueLabel='1.0' of image 'x1'"),
        ([("x1", "1", "")], "TargetClass='' of image 'x1'"),
        ([("x1", "0", "1")], r"TrueLabel=0 of image 'x1' is not 1\.\.1000"),
        ([("x1", "1001", "1")], r"TrueLabel=1001 of image 'x1' is not 1\.\.1000"),
        ([("x1", "1", "1001")], r"TargetClass=1001 of image 'x1' is not 1\.\.1000"),
        ([("x1", "1", "1"), ("x9", "1", "1")], r"image 'x9' is not in .*images"),
        ([("x1", "1", "1"), ("x1", "2", "1")], "lists the image 'x1' more than once"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        image_csv("test", root=write_root(tmp_path, rows))


def test_missing_columns_are_refused(tmp_path):
    root = write_root(tmp_path, header="id,TrueLabel,TargetClass,License")
    message = r"lacks the column\(s\) ImageId; it has id, TrueLabel, TargetClass, License"
    with pytest.raises(ValueError, match=message):
        image_csv("test", root=root)


def test_missing_csv_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"images.csv does not exist"):
        image_csv("test", root=str(tmp_path))
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    with pytest.raises(ValueError, match=r"images.csv does not exist"):
        image_csv("test", root=str(tmp_path / "x.tar"))


def test_missing_images_folder_is_refused(tmp_path):
    root = write_root(tmp_path)
    with pytest.raises(ValueError, match=r"'x2' is not in .*pictures"):
        image_csv("test", root=root, images="pictures")


def test_csv_that_is_no_text_is_refused(tmp_path):
    root = write_root(tmp_path)
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        image_csv("test", root=root)


@pytest.mark.realdata
def test_nips_2017_images(real_data):
    root = str(real_data / "imagenet-nips2017-250.tar")
    dataset = ImageDataset(image_csv("test", root=root), n_images=4, image_size=224)
    assert dataset.num_classes == 1000
    assert dataset.target_labels is not None
    assert not np.array_equal(dataset.labels, dataset.target_labels)
    assert dataset.__getitems__(range(4)).images.shape == (4, 3, 224, 224)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("x1", "1" * 140_000, "1"), r"images\.csv is not a readable CSV: field larger"),
        (("x1", "9" * 30, "1"), r"TrueLabel=9+ of image 'x1' is not 1\.\.1000000$"),
        (("x1", "1000000000000", "1"), r"is not 1\.\.1000000$"),
    ],
)
def test_absurd_numbers_are_refused(tmp_path, row, message):
    root = write_root(tmp_path, [row])
    with pytest.raises(ValueError, match=message):
        image_csv("test", root=root, num_classes=None)


def test_absurdly_many_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_classes=1000000000000 is more than 1000000"):
        image_csv("test", root=write_root(tmp_path), num_classes=10**12)
