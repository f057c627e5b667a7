"""Damaged files: every reader reads them or refuses them by ValueError, whatever the damage."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from src.artifacts.jobs import find_jobs
from src.data import ImageDataset, LabelledImages
from src.data.image_files import image_csv
from src.models import load_weights

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
CSV = b"ImageId,TrueLabel,TargetClass\nx1,1,2\nx2,2,1\n"
JOB = Path(__file__).parents[2] / "docs" / "results" / "demo" / "0-fgsm-vgg_small"


def content(write: Callable[[Path], object]) -> bytes:
    """Return what a function writes to a path."""
    with TemporaryDirectory() as folder:
        write(Path(folder, "file"))
        return Path(folder, "file").read_bytes()


def read_image(path: Path) -> None:
    ImageDataset(LabelledImages([path], np.array([0]))).digest()


def read_csv(path: Path) -> None:
    image_csv("test", root=str(path.parent), folder=".")


def read_weights(path: Path) -> None:
    load_weights(torch.nn.Linear(3, 2), path)


def read_job(path: Path) -> None:
    (job,) = find_jobs([path.parent])
    assert len(job.predictions) == 5000 and len(job.clean) == 1000


READERS = {
    "images.csv": (CSV, read_csv),
    "x.png": (content(lambda path: PICTURE.save(path, "PNG")), read_image),
    "x.pt": (content(lambda path: torch.save(STATE, path)), read_weights),
    "x.safetensors": (content(lambda path: save_file(STATE, path)), read_weights),
    "predictions.parquet": ((JOB / "predictions.parquet").read_bytes(), read_job),
}
TOKENS = [b'"', b"(", b"\0", b"\n", b"-1", b"1e400", b"9" * 30, b"1" * 140_000]
ADDED = st.one_of(st.binary(max_size=4), st.sampled_from(TOKENS))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), ADDED), min_size=1, max_size=4)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, derandomize=True, max_examples=40)
@given(edits=EDITS)
def test_damage_is_read_or_refused(name, edits):
    damaged, read = READERS[name]
    for place, removed, added in edits:
        start = int(place * len(damaged))
        damaged = damaged[:start] + added + damaged[start + removed :]
    with TemporaryDirectory() as folder:
        for image in ("x1.png", "x2.png"):
            PICTURE.save(Path(folder, image))
        Path(folder, name).write_bytes(damaged)
        try:
            read(Path(folder, name))
        except (ValueError, FileNotFoundError) as error:
            assert len(str(error)) < 1000
