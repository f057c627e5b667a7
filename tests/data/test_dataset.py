"""`ImageDataset`, its batches and what it takes as an image."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, resize

from src.data import ImageDataset, LabelledImages, to_rgb, to_unit


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


def test_labels_and_sizes_out_of_range_are_refused():
    for words, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            ImageDataset(**({"data": split()} | words)).digest()
