"""Damaged files: every reader reads them or refuses them by ValueError, whatever the damage."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

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
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a/1.png", "b/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture("PNG"))
            archive.addfile(member, io.BytesIO(picture("PNG")))
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/1.png", "b/2.png"):
            archive.writestr(name, picture("PNG"))
    return stream.getvalue()


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
    "x.tar": (tar(), read_archive),
    "x.tar.gz": (gzip.compress(tar()), read_archive),
    "x.zip": (zipped(), read_archive),
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


def damaged_is_read_or_refused(path: Path, edits) -> None:
    content, read = READERS[path.name]
    for place, removed, added in edits:
        start = int(place * len(content))
        content = content[:start] + added + content[start + removed :]
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        assert len(str(error)) < 1000


FUZZ = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, **FUZZ)
@given(edits=EDITS)
def test_damage_is_read_or_refused(folder, name, edits):
    damaged_is_read_or_refused(folder / name, edits)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, **FUZZ)
@given(edits=EDITS)
def test_more_damage_is_read_or_refused(folder, name, edits):
    damaged_is_read_or_refused(folder / name, edits)
