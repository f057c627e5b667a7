"""ImageNet-1k in class folders, and images resized before they are cut."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from src.data import ImageDataset
from src.data.image_files import image_folder, imagenet


def test_classes_follow_the_sorted_wordnet_ids(tmp_path, write_classes):
    root = write_classes(tmp_path / "val", ["n02000000", "n01000000"]).parent
    data = imagenet("test", root=str(root))
    assert (data.classes, [*data.targets]) == (["n01000000", "n02000000"], [0, 0, 1, 1])
    root = write_classes(tmp_path / "numbers", ["0", "10", "2"])
    with pytest.raises(ValueError, match=r"class folder 0 .* WordNet id"):
        imagenet("test", root=str(root))


def test_images_are_resized_before_the_cut_as_torchvision_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    (tmp_path / "n01000000").mkdir()
    Image.fromarray(pixels).save(tmp_path / "n01000000" / "a.png")
    data = imagenet("test", root=str(tmp_path))
    cut = ImageDataset(data, image_size=28, resize=32)
    wanted = Compose([Resize(32), CenterCrop(28), PILToTensor()])(Image.fromarray(pixels))
    assert torch.equal(cut[:].images[0], wanted)
    assert cut.digest() != ImageDataset(data, image_size=28).digest()
    for image_size in (None, 33):
        with pytest.raises(ValueError, match=r"resize=32 needs dataset\.image_size"):
            ImageDataset(data, image_size=image_size, resize=32)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["n02102040", "n01440764"], [0, 217]),
        (["tench", "English springer"], [217, 0]),
        (["10", "9", "999"], [10, 9, 999]),
        (["0007", "0010"], [7, 10]),
    ],
)
def test_some_of_imagenets_classes_keep_their_numbers(tmp_path, write_classes, names, labels):
    data = image_folder("test", root=str(write_classes(tmp_path / "x", names, images=1)))
    dataset = ImageDataset(data, class_names="imagenet")
    assert dataset.labels.tolist() == labels and dataset.num_classes == 1000


@pytest.mark.parametrize("names", [["1", "1000"], ["-1", "5"], ["n01440764", "n00000001"]])
def test_classes_that_imagenet_lacks_are_refused(tmp_path, write_classes, names):
    data = image_folder("test", root=str(write_classes(tmp_path / "x", names, images=1)))
    with pytest.raises(ValueError, match=f"class_names=imagenet needs .* not {names[1]}|not -1"):
        ImageDataset(data, class_names="imagenet")
