"""`ImageRecords`, `ImageDataset` and batches."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from src.data import Batch, ImageDataset, ImageRecords, keep_batch, to_unit
from src.data.dataset import resize_and_crop


@dataclass
class Stored:
    """Images in a list."""

    images: list[np.ndarray]

    def read(self, position):
        return self.images[position]

    def content(self, position):
        return self.images[position].tobytes()

    def name(self, position):
        return f"file-{position}.png"


def random_images(count=20, height=6, width=6, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def make_records(images=None, labels=None, target_labels=None):
    stored = Stored(random_images() if images is None else images)
    if labels is None:
        labels = np.arange(len(stored.images), dtype=np.int64) % 4
    names = ("a", "b", "c", "d")
    return ImageRecords(labels, names, stored.read, stored.content, target_labels, stored.name)


def test_item_is_the_stored_image_with_its_place_in_the_full_split():
    images = random_images()
    dataset = ImageDataset(make_records(images), n_images=8, seed=2)
    assert len(dataset) == 8
    for i in range(8):
        image, label, position = dataset[i]
        assert position == dataset.indices[i]
        assert label == dataset.labels[i] == position % 4
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0).numpy(), images[position])


def test_batch_equals_items():
    dataset = ImageDataset(make_records(), n_images=9)
    batch = dataset.__getitems__([7, 0, 3])
    for k, i in enumerate([7, 0, 3]):
        image, label, position = dataset[i]
        assert torch.equal(batch.images[k], image)
        assert (batch.labels[k].item(), batch.index[k].item()) == (label, position)
    assert (batch.labels.dtype, batch.index.dtype) == (torch.int64, torch.int64)


def test_batches_do_not_share_memory_with_the_data():
    images = random_images()
    before = images[0].copy()
    ImageDataset(make_records(images)).__getitems__([0]).images.zero_()
    ImageDataset(make_records(images))[0][0].zero_()
    assert np.array_equal(images[0], before)


def test_read_only_images_are_accepted():
    images = random_images(4)
    for image in images:
        image.flags.writeable = False
    assert ImageDataset(make_records(images))[0][0].shape == (3, 6, 6)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader_gives_batches(workers):
    dataset = ImageDataset(make_records())
    loader = DataLoader(dataset, batch_size=8, collate_fn=keep_batch, num_workers=workers)
    batches = list(loader)
    assert all(isinstance(batch, Batch) for batch in batches)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(20))


def test_pickle_gives_the_same_data():
    dataset = ImageDataset(make_records(), n_images=5)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.digest() == dataset.digest()
    assert torch.equal(copy[3][0], dataset[3][0])


def test_target_labels_follow_the_subset():
    targets = (np.arange(20, dtype=np.int64) + 1) % 4
    dataset = ImageDataset(make_records(target_labels=targets), n_images=6)
    assert np.array_equal(dataset.target_labels, (dataset.labels + 1) % 4)
    assert ImageDataset(make_records()).target_labels is None


def test_image_size_as_stored():
    dataset = ImageDataset(make_records(random_images(4, 5, 7)))
    assert dataset.image_shape == (5, 7)
    assert dataset.image_size == 5


def test_image_size_cuts_out_the_centre():
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    image[:, 10:20] = 255
    assert (resize_and_crop(image, 10) == 255).all()
    assert (resize_and_crop(image.transpose(1, 0, 2), 10) == 255).all()


def test_image_size_resizes_the_shorter_side_with_antialiasing():
    board = np.indices((64, 96)).sum(axis=0) % 2 * 255
    small = resize_and_crop(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8), 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small.astype(int) - 127).max() < 12


def test_image_size_equal_to_the_stored_one_changes_nothing():
    dataset = ImageDataset(make_records(), image_size=6)
    assert torch.equal(dataset[2][0], ImageDataset(make_records())[2][0])
    assert dataset.digest() == ImageDataset(make_records()).digest()


def test_image_size_makes_mixed_sizes_equal():
    images = [*random_images(3), *random_images(3, 9, 17)]
    dataset = ImageDataset(make_records(images), image_size=4)
    assert dataset.__getitems__(range(6)).images.shape == (6, 3, 4, 4)


def test_mixed_sizes_as_stored_are_refused_with_the_file():
    images = [*random_images(3), *random_images(1, 9, 17)]
    dataset = ImageDataset(make_records(images))
    with pytest.raises(
        ValueError, match=r"image 3 \(file-3.png\) has 9 x 17 .* dataset.image_size"
    ):
        dataset.__getitems__([0, 3])


@pytest.mark.parametrize("size", [0, -4, 2.5, True])
def test_wrong_image_size_is_refused(size):
    with pytest.raises(ValueError, match="image_size="):
        ImageDataset(make_records(), image_size=size)


def test_digest_covers_everything_that_changes_results():
    targets = np.zeros(20, dtype=np.int64)
    other_pixel = random_images()
    other_pixel[7][0, 0, 0] ^= 1
    digests = [
        ImageDataset(make_records()).digest(),
        ImageDataset(make_records(other_pixel)).digest(),
        ImageDataset(make_records(labels=(np.arange(20, dtype=np.int64) + 1) % 4)).digest(),
        ImageDataset(make_records(target_labels=targets)).digest(),
        ImageDataset(make_records(), n_images=10).digest(),
        ImageDataset(make_records(), n_images=10, seed=1).digest(),
        ImageDataset(make_records(), image_size=5).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == ImageDataset(make_records()).digest()
    assert len(digests[0]) == 16


def test_digest_is_computed_once():
    images = random_images()
    dataset = ImageDataset(make_records(images))
    before = dataset.digest()
    images.clear()
    assert dataset.digest() == before


def test_to_unit():
    unit = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert unit.dtype == torch.float32
    assert torch.equal(unit, torch.tensor([0, 51, 255], dtype=torch.float32) / 255)
    with pytest.raises(ValueError, match="float32"):
        to_unit(unit)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([], dtype=np.int64), "no images"),
        (np.array([0, 4]), "labels hold 4"),
        (np.array([0, -1]), "labels hold -1"),
        (np.array([0.0]), "float64"),
        (np.array([[0]]), "int64"),
    ],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        make_records(labels=labels)


def test_wrong_number_of_target_labels_is_refused():
    with pytest.raises(ValueError, match="3 target_labels were given for 20 images"):
        make_records(target_labels=np.zeros(3, dtype=np.int64))
