"""Damaged files: every reader reads them or refuses them by ValueError, whatever the damage."""

import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from src.data import ImageDataset, LabelledImages
from src.data.image_csv import image_csv
from src.data.image_folder import image_folder
from src.models import load_weights


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def packed(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        for name in ("a/1.png", "b/2.png"):
            path = Path(folder, "x", name)
            path.parent.mkdir(parents=True)
            path.write_bytes(picture("PNG"))
        archive = shutil.make_archive(f"{folder}/archive", kind, f"{folder}/x")
        return Path(archive).read_bytes()


def state(kind: str) -> bytes:
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    if kind == "safetensors":
        return save(tensors)
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def read_image(path: Path) -> None:
    ImageDataset(LabelledImages([path], np.array([0]))).digest()


def read_csv(path: Path) -> None:
    image_csv("test", root=str(path.parent), images=".")


def read_archive(path: Path) -> None:
    image_folder("test", root=str(path), cache_dir=str(path.parent / "cache"))


def read_weights(path: Path) -> None:
    load_weights(torch.nn.Linear(3, 2), path)


CSV = b"ImageId,TrueLabel,TargetClass\nx1,1,2\nx2,2,1\n"
READERS = {
    "images.csv": (CSV, read_csv),
    "x.png": (picture("PNG"), read_image),
    "x.jpg": (picture("JPEG"), read_image),
    "x.tif": (picture("TIFF"), read_image),
    "x.tar": (packed("tar"), read_archive),
    "x.tar.gz": (packed("gztar"), read_archive),
    "x.zip": (packed("zip"), read_archive),
    "x.pt": (state("pt"), read_weights),
    "x.safetensors": (state("safetensors"), read_weights),
}
TOKENS = [b'"', b"(", b"[", b"{", b"\0", b"\n", b"-1", b"1e400", b"null", b"9" * 30, b"1" * 140_000]
ADDED = st.one_of(st.binary(max_size=4), st.sampled_from(TOKENS))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), ADDED), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("fuzz")
    for name in ("x1.png", "x2.png"):
        (place / name).write_bytes(picture("PNG"))
    return place


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits=EDITS)
def test_damage_is_read_or_refused(folder, name, edits):
    path, (content, read) = folder / name, READERS[name]
    for place, removed, added in edits:
        start = int(place * len(content))
        content = content[:start] + added + content[start + removed :]
    path.write_bytes(content)
    try:
        read(path)
    except (ValueError, FileNotFoundError) as error:
        assert len(str(error)) < 1000
