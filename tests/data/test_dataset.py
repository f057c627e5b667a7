"""`ImageDataset`, its batches, what it takes as an image, and its class-balanced subsets."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, resize

from src.data import ImageDataset, LabelledImages, balanced_subset, load_dataset, to_rgb, to_unit
from src.utils.files import write_csv


def random_images(count=20, height=6, width=6):
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def split(images=None, targets=None, target_labels=None):
    images = random_images() if images is None else images
    targets = np.arange(len(images)) % 4 if targets is None else np.asarray(targets)
    return LabelledImages(images, targets, ("a", "b", "c", "d"), target_labels)


def test_images_are_taken_by_position():
    dataset = ImageDataset(split(), n_images=9, seed=2)
    whole = dataset[:]
    assert len(whole.images) == 9 and torch.equal(dataset[2:5].images, whole.images[2:5])
    assert torch.equal(dataset[[8, 1]].index, whole.index[[8, 1]])
    assert all(torch.equal(one, many[-1]) for one, many in zip(dataset[-1], whole, strict=True))
    for wrong in (9, slice(3, 3), [], True):
        with pytest.raises(IndexError):
            dataset[wrong]


def test_a_part_is_a_data_set_of_its_own():
    whole = ImageDataset(split(target_labels=(np.arange(20) + 1) % 4), n_images=12, seed=1)
    digest = whole.digest()
    part = whole.subset(6, seed=3)
    chosen = [whole.indices.tolist().index(number) for number in part.indices]
    assert len(part) == 6 and np.ptp(np.bincount(part.labels, minlength=4)) <= 1
    for one, other in zip(part[:6], whole[chosen], strict=True):
        assert torch.equal(one, other)
    assert np.array_equal(part.target_labels, whole.target_labels[chosen])
    assert part.digest() != digest == whole.digest() and len(whole) == 12
    assert all(whole.subset(n).digest() == digest for n in (None, 12, 13))


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream


def test_images_may_come_as_pictures_paths_arrays_and_tensors_of_every_mode(tmp_path):
    (array,) = random_images(1)
    Image.fromarray(array).save(tmp_path / "x.png")
    tensor = torch.tensor(array).permute(2, 0, 1)
    images = ImageDataset(split([array, Image.fromarray(array), tmp_path / "x.png", tensor]))[:]
    assert (images.images.permute(0, 2, 3, 1).numpy() == array).all()
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    alpha = Image.fromarray(rgb)
    alpha.putalpha(7)
    palette = Image.fromarray(rgb).quantize(4)
    files = [encoded(Image.fromarray(grey)), encoded(alpha)]
    for image in (grey, *files, encoded(palette, transparency=b"\x00\x80\xff\xff")):
        assert np.array_equal(to_rgb(image), rgb)
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [0, 0.2, 1]
    )
    with pytest.raises(ValueError, match="float32"):
        to_unit(torch.ones(1))


def png_of_16_bits():
    """Return a PNG of one colour."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", 1, 1, 16, 2, 0, 0, 0)
    parts = [header, b"IDAT" + zlib.compress(bytes(7)), b"IEND"]
    ends = [struct.pack(">I", zlib.crc32(part)) for part in parts]
    sizes = [struct.pack(">I", len(part) - 4) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(b"".join, zip(sizes, parts, ends, strict=True)))


def test_what_is_no_image_is_named_when_it_is_read(tmp_path):
    picture = Image.fromarray(random_images(1, 32, 32)[0])
    whole = encoded(picture).getvalue()
    huge = encoded(Image.new("1", (20_000, 20_000))).getvalue()
    program = encoded(Image.new("RGB", (4, 4)), "EPS").getvalue()  # which Ghostscript would run
    for content in (b"", b"text", whole[: len(whole) // 2], huge, program):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"image 0 \(.*x\.png\) cannot be read"):
            ImageDataset(split([tmp_path / "x.png"]), image_size=32).digest()
    (tmp_path / "x.jpg").write_bytes(encoded(picture, "JPEG").getvalue()[:-300])
    data = ImageDataset(split([tmp_path / "x.jpg"]), image_size=32)
    data.digest()  # which does not decode
    with pytest.raises(ValueError, match=r"image 0 \(.*x\.jpg\) cannot be read"):
        _ = data[0]
    for deep in (b"P6 1 1 65535\n" + bytes(6), png_of_16_bits()):
        with pytest.raises(ValueError, match="more than 8 bits"):
            to_rgb(io.BytesIO(deep))


def test_pillow_resizes_as_torchvision_does():
    for height, width in [(7, 7), (8, 7), (7, 8), (31, 6), (500, 333), (333, 500), (299, 300)]:
        (image,) = random_images(1, height, width)
        for shorter, size in ((7, 7), (12, 5), (256, 224)):
            resized = center_crop(resize(Image.fromarray(image), [shorter]), [size])
            ours = ImageDataset(split([image]), image_size=size, resize=shorter)[0].images
            assert np.array_equal(ours.permute(1, 2, 0), resized), (height, width, shorter, size)


def test_the_digest_covers_everything_that_changes_results():
    other_pixel = random_images()
    other_pixel[7][0, 0, 0] ^= 1
    variants = [
        {},
        {"data": split(other_pixel)},
        {"data": split(targets=(np.arange(20) + 1) % 4)},
        {"data": split(target_labels=np.zeros(20, dtype=np.int64))},
        {"n_images": 10},
        {"n_images": 10, "seed": 1},
        {"image_size": 5},
        {"image_size": 5, "resize": 6},
        {"numbers": np.arange(1, 21)},
    ]
    digests = [ImageDataset(**({"data": split()} | words)).digest() for words in variants]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {16}


REFUSED = [
    ({"data": split([], [])}, "no images"),
    ({"data": split(targets=[4] * 20)}, "labels have 4"),
    ({"data": split(targets=[0.0] * 20)}, "float64"),
    ({"data": split(target_labels=np.array([9] * 20))}, "target_labels have 9"),
    ({"data": split([np.full((4, 4), 200, dtype=np.uint16)])}, "image 0"),
    ({"data": split([np.zeros((4, 4, 3))])}, "image 0"),
    ({"data": split(random_images(2, 5, 7))}, "dataset.image_size"),
    ({"data": split(random_images(1, 5, 5) + random_images(1, 9, 9))}, "dataset.image_size"),
    ({"resize": 32}, r"resize=32 needs dataset\.image_size"),
    ({"resize": 32, "image_size": 33}, r"resize=32 needs dataset\.image_size"),
]


def test_images_that_differ_between_two_reads_are_refused():
    class Flipping(list):
        def __getitem__(self, place):
            image = super().__getitem__(place)
            return image[:, :: np.random.default_rng().choice([-1, 1])]

    with pytest.raises(
        ValueError, match=r"^image \d+ differs between two reads\. Remove random tr"
    ):
        ImageDataset(split(Flipping(random_images()))).digest()


def test_labels_and_sizes_out_of_range_are_refused():
    for words, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            ImageDataset(**({"data": split()} | words)).digest()


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
    """In any order, without folders, and with odd names."""
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
