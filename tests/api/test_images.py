"""Images for `transfer` in the forms in which people have them give the same numbers."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from src.api.transfer import transfer
from src.data import load_dataset

MINI = {"_target_": "src.data.cifar10_mini.cifar10_mini"}


@pytest.fixture(scope="module")
def batch():
    return load_dataset("test", MINI)[:12]


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10)).eval()


@pytest.fixture(scope="module")
def evaluate(network):
    def call(images, *labels, **words):
        frame = transfer(
            {"a": network}, {"a": network}, images, *labels, progress_bar=False, **words
        )
        return frame[["index", "label", "eps_255", "predicted"]].reset_index(drop=True)

    return call


@pytest.fixture(scope="module")
def expected(evaluate, batch, network):
    frame = evaluate(batch.images, batch.labels)
    clean = frame[frame["eps_255"] == 0]["predicted"].tolist()
    with torch.no_grad():
        assert clean == network(batch.images / 255).argmax(1).tolist()
    return frame


class Pairs(Dataset):
    """A map-style data set that never raises IndexError."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i % len(self)], self.labels[i % len(self)]


class Stream(IterableDataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return iter(self.pairs)


FORMS = {
    "NHWC floats": lambda x, y: ((x.permute(0, 2, 3, 1) / 255).numpy(), y.numpy()),
    "pictures": lambda x, y: (pictures(x), y.tolist()),
    "tensors": lambda x, y: (list(x / 255), list(y)),
    "data set": lambda x, y: (TensorDataset(x, y),),
    "endless data set": lambda x, y: (Pairs(pictures(x), y.tolist()),),
    "images alone": lambda x, y: (TensorDataset(x), y),
    "stream": lambda x, y: (Stream([*zip(x, y.tolist(), strict=True)]),),
    "loader": lambda x, y: (DataLoader(TensorDataset(x / 255, y), batch_size=5),),
    "loader without batches": lambda x, y: (DataLoader(TensorDataset(x, y), batch_size=None),),
    "own data set": lambda x, y: (load_dataset("test", {**MINI, "n_test": 12}),),
}


def pictures(images):
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize("form", FORMS)
def test_images_in_other_forms_give_the_same_rows(evaluate, batch, expected, form):
    assert evaluate(*FORMS[form](batch.images, batch.labels)).equals(expected)


def test_a_column_of_a_hugging_face_data_set(evaluate, batch, expected):
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    values = {"image": pictures(batch.images), "label": batch.labels.tolist()}
    kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
    data = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
    for column in (data, data.with_format("torch")):
        assert evaluate(column["image"], column["label"]).equals(expected)
    with pytest.raises(ValueError, match=r"Pass columns: data\['image'\]"):
        evaluate(data)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (lambda x, y: (TensorDataset(x, y), y.flip(0)), "images have labels of their own"),
        (lambda x, y: (TensorDataset(x),), "images come without labels"),
        (lambda x, y: ([Image.new("RGB", (n, 8)) for n in (8, 9)], [0, 1]), "images have 2 sizes"),
        (lambda x, y: (x[..., :30], y), r"not \(12, 3, 32, 30\)"),
        (lambda x, y: (DataLoader(Stream([{"image": x[0]}] * 2)), y), "are not images"),
        (lambda x, y: (TensorDataset(x, y / 2),), "whole numbers"),
    ],
)
def test_other_forms_are_refused_in_a_sentence(evaluate, batch, form, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        evaluate(*form(batch.images, batch.labels))
    assert "\n" not in str(refused.value)
