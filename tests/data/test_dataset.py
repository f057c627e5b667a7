"""`ImageDataset`, its batches and what it takes as an image."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_convert
from torchvision.transforms.functional import center_crop, resize

from src.data import ImageDataset, LabelledImages, to_rgb, to_unit

NAMES = ("a", "b", "c", "d")


def random_images(count=20, height=6, width=6):
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def split(images=None, targets=None, target_labels=None, classes=NAMES):
    images = random_images() if images is None else images
    targets = np.arange(len(images)) % 4 if targets is None else np.asarray(targets)
    return LabelledImages(images, targets, classes, target_labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_the_stored_images_with_their_places_in_the_full_split(workers):
    images = random_images()
    dataset = ImageDataset(split(images), n_images=9, seed=2)
    assert len(dataset) == 9
    loader = DataLoader(dataset, batch_size=4, collate_fn=default_convert, num_workers=workers)
    found, labels, index = (torch.cat(part) for part in zip(*loader, strict=True))
    assert index.tolist() == dataset.indices.tolist()
    assert labels.tolist() == dataset.labels.tolist() == [int(place) % 4 for place in index]
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), np.stack(images)[index])


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
    targets = (np.arange(20) + 1) % 4
    whole = ImageDataset(split(target_labels=targets), n_images=12, seed=1)
    digest = whole.digest()
    part = whole.subset(6, seed=3)
    chosen = [whole.indices.tolist().index(number) for number in part.indices]
    assert len(part) == 6 and np.ptp(np.bincount(part.labels, minlength=4)) <= 1
    for one, other in zip(part[:6], whole[chosen], strict=True):
        assert torch.equal(one, other)
    assert np.array_equal(part.target_labels, whole.target_labels[chosen])
    assert part.digest() != digest == whole.digest() and len(whole) == 12
    assert all(whole.subset(n).digest() == digest for n in (None, 12, 13))


def test_target_labels_and_own_numbers_follow_the_subset():
    targets, numbers = (np.arange(20) + 1) % 4, 100 + np.arange(20)
    dataset = ImageDataset(split(target_labels=targets), n_images=6, numbers=numbers)
    assert np.array_equal(dataset.target_labels, (dataset.labels + 1) % 4)
    assert np.array_equal((dataset.indices - 100) % 4, dataset.labels)
    assert ImageDataset(split()).target_labels is None


def test_images_may_come_as_pictures_paths_arrays_and_tensors(tmp_path):
    (array,) = random_images(1)
    Image.fromarray(array).save(tmp_path / "x.png")
    tensor = torch.tensor(array).permute(2, 0, 1)
    forms = [array, Image.fromarray(array), tmp_path / "x.png", tensor]
    images = ImageDataset(split(forms))[:4].images
    assert (images.permute(0, 2, 3, 1).numpy() == array).all()
    grey = ImageDataset(split([array[:, :, 0]]))[0].images
    assert (grey.numpy() == array[:, :, 0]).all()


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream


def test_every_mode_becomes_rgb():
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    picture = Image.fromarray(rgb)
    alpha = picture.copy()
    alpha.putalpha(7)
    palette = encoded(picture.quantize(4), transparency=b"\x00\x80\xff\xff")
    for file in (encoded(Image.fromarray(grey)), encoded(alpha), palette):
        assert np.array_equal(to_rgb(file), rgb)


def test_what_is_no_image_is_named_when_it_is_read(tmp_path):
    whole = encoded(Image.fromarray(random_images(1, 32, 32)[0])).getvalue()
    huge = encoded(Image.new("1", (20_000, 20_000))).getvalue()
    program = encoded(Image.new("RGB", (4, 4)), "EPS").getvalue()  # which Ghostscript would run
    for content in (b"", b"text", whole[: len(whole) // 2], huge, program):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"image 0 \(.*x\.png\) cannot be read as an image"):
            ImageDataset(split([tmp_path / "x.png"]), image_size=32).digest()
    photo = encoded(Image.fromarray(random_images(1, 32, 32)[0]), "JPEG").getvalue()
    (tmp_path / "x.jpg").write_bytes(photo[:-300])
    data = ImageDataset(split([tmp_path / "x.jpg"]), image_size=32)
    data.digest()  # which does not decode
    with pytest.raises(ValueError, match=r"image 0 \(.*x\.jpg\) cannot be read as an image"):
        _ = data[0]
    for array in (np.full((4, 4), 200, dtype=np.uint16), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="image 0"):
            ImageDataset(split([array])).digest()


def test_channels_of_16_bits_are_refused():
    header = struct.pack(">4sIIBBBBB", b"IHDR", 1, 1, 16, 2, 0, 0, 0)  # a PNG of one colour
    content = b"IDAT" + zlib.compress(bytes(7))
    parts = [struct.pack(">I", len(part) - 4) + part for part in (header, content, b"IEND")]
    sums = [struct.pack(">I", zlib.crc32(part[4:])) for part in parts]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(map(bytes.__add__, parts, sums))
    for deep in (png, b"P6 1 1 65535\n" + bytes(6)):
        with pytest.raises(ValueError, match="more than 8 bits"):
            to_rgb(io.BytesIO(deep))
    assert to_rgb(io.BytesIO(b"P6 1 1 255\n\1\2\3")).tolist() == [[[1, 2, 3]]]


def test_image_size_shrinks_with_antialiasing_and_cuts_out_the_centre():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    board = np.indices((64, 96)).sum(axis=0)[:, :, None].repeat(3, axis=2) % 2 * 255
    images = [wide, wide.transpose(1, 0, 2), board.astype(np.uint8)]
    dataset = ImageDataset(split(images), image_size=10)
    centre, other, grey = dataset[:3].images
    assert (centre == 255).all() and (other == 255).all()
    assert (grey.int() - 127).abs().max() < 12
    same = ImageDataset(split(), image_size=6)
    assert same.digest() == ImageDataset(split()).digest()


def test_pillow_resizes_as_torchvision_does():
    sides = [(7, 7), (8, 7), (7, 8), (5, 9), (31, 6), (500, 333), (333, 500), (299, 300)]
    for height, width in sides:
        (image,) = random_images(1, height, width)
        for shorter, size in ((7, 7), (8, 7), (12, 5), (256, 224)):
            resized = center_crop(resize(Image.fromarray(image), [shorter]), [size])
            ours = ImageDataset(split([image]), image_size=size, resize=shorter)[0].images
            assert np.array_equal(ours.permute(1, 2, 0), resized), (height, width, shorter, size)


@pytest.mark.parametrize("sizes", [[(5, 5), (9, 17)], [(5, 7), (5, 7)]])
def test_without_image_size_all_must_be_squares_of_one_size(sizes):
    images = [image for height, width in sizes for image in random_images(1, height, width)]
    with pytest.raises(ValueError, match=r"image .*dataset.image_size"):
        ImageDataset(split(images)).digest()
    assert ImageDataset(split(images), image_size=4).image_size == 4


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
        {"numbers": np.arange(1, 21)},
    ]
    digests = [ImageDataset(**({"data": split()} | words)).digest() for words in variants]
    assert len(set(digests)) == len(digests)
    again = pickle.loads(pickle.dumps(ImageDataset(split())))
    assert again.digest() == digests[0] and len(digests[0]) == 16


def test_the_digest_of_files_is_that_of_their_bytes_wherever_they_lie(tmp_path):
    digests = []
    for name, level in (("one.bmp", 0), ("two.bmp", 0), ("three.bmp", 1)):
        Image.new("RGB", (6, 6), (level,) * 3).save(tmp_path / name)
        digests.append(ImageDataset(split([tmp_path / name]), image_size=6).digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"data": split([], [])}, "no images"),
        ({"data": split(targets=[4] * 20)}, "labels have 4"),
        ({"data": split(targets=[0.0] * 20)}, "float64"),
        ({"data": split(target_labels=np.array([9] * 20))}, "target_labels have 9"),
        ({"n_images": 21}, "n_images=21"),
    ],
)
def test_labels_and_sizes_out_of_range_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ImageDataset(**({"data": split()} | words))


def test_to_unit():
    unit = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert torch.equal(unit, torch.tensor([0.0, 0.2, 1.0]))
    with pytest.raises(ValueError, match="float32"):
        to_unit(unit)
