"""Damaged files: every reader reads them or refuses them by ValueError, whatever the damage."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from src.data.files import decode, open_files
from src.data.image_csv import image_csv
from src.experiment.provenance import JobRecord, read_record, with_record
from src.models import load_state
from src.sets import SetWriter, open_set
from src.sets.manifest import MANIFEST, digest_of

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, kind)
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, PIXELS)
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a/1.png", "b/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture("PNG"))
            archive.addfile(member, io.BytesIO(picture("PNG")))
    return stream.getvalue()


def table() -> bytes:
    record = JobRecord("key", "data", 2, ("a", "b"), {}, {"dataset": {"name": "x"}})
    stream = io.BytesIO()
    pq.write_table(with_record(pa.table({"index": [1]}), "predictions", record), stream)
    return stream.getvalue()


def state(kind: str) -> bytes:
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    if kind == "safetensors":
        return save(tensors)
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def manifest(folder: Path) -> bytes:
    writer = SetWriter(folder, [4, 7], (3, 8, 9), [8.0]).create()
    images = PIXELS.transpose(0, 3, 1, 2)
    writer.write([4, 7], images, images[None])
    dataset = {"name": "x", "digest": "ab", "num_classes": 2, "class_names": ["a", "b"]}
    facts = {"source": "vgg16", "attack": "bim", "norm": "linf", "seed": 0, "dataset": dataset}
    return writer.finish({**facts, "labels": [0, 1], "target_labels": None}).read_bytes()


def read_csv(path: Path) -> None:
    root = str(path.parent)
    image_csv("test", root=root, images=".", num_classes=None)


def read_tar(path: Path) -> None:
    files = open_files(path, "dataset.root", path.parent)
    for name in files.files():
        files.content(name)


CSV = b"ImageId,TrueLabel,TargetClass\nx1,1,2\nx2,2,1\n"
READERS = {
    "images.csv": (lambda folder: CSV, read_csv),
    "x.png": (lambda folder: picture("PNG"), lambda path: decode(path.read_bytes(), "x")),
    "x.jpg": (lambda folder: picture("JPEG"), lambda path: decode(path.read_bytes(), "x")),
    "x.tif": (lambda folder: picture("TIFF"), lambda path: decode(path.read_bytes(), "x")),
    "x.npy": (lambda folder: array(), lambda path: open_set(path, eps_255=8)),
    "x.tar": (lambda folder: tar(), read_tar),
    "x.tar.gz": (lambda folder: gzip.compress(tar()), read_tar),
    "x.parquet": (lambda folder: table(), read_record),
    "x.pt": (lambda folder: state("pt"), load_state),
    "x.safetensors": (lambda folder: state("safetensors"), load_state),
    MANIFEST: (manifest, open_set),
}

TOKENS = [b'"', b"(", b"[", b"{", b"\0", b"\n", b"-1", b"1e400", b"null", b"9" * 30, b"1" * 140_000]
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 20),
        st.one_of(st.binary(max_size=4), st.sampled_from(TOKENS)),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "labels.npy").write_bytes(b"")
    np.save(folder / "labels.npy", np.array([0, 1]))
    for name in ("x1.png", "x2.png"):
        (folder / name).write_bytes(picture("PNG"))
    return {folder / name: make(folder) for name, (make, _) in READERS.items()}


def fuzz(examples):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=quiet
    )


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
@fuzz(100)
@given(edits=EDITS)
def test_damage_is_read_or_refused(originals, name, edits):
    (path,) = [path for path in originals if path.name == name]
    content = originals[path]
    for place, removed, added in edits:
        start = int(place * len(content))
        content = content[:start] + added + content[start + removed :]
    path.write_bytes(content)
    try:
        READERS[name][1](path)
    except ValueError as error:
        assert len(str(error)) < 1000


JUNK = [
    None,
    True,
    -1,
    0.5,
    10**12,
    10**30,
    float("nan"),
    "",
    "x" * 10_000,
    [],
    {},
    [10**30],
    ["a"],
]


def replaced(content, place: float, junk):
    """Return plain data with one value, of those inside it, replaced by another one."""
    paths = [()]
    for path in paths:
        inner = content
        for step in path:
            inner = inner[step]
        if isinstance(inner, dict | list):
            steps = inner if isinstance(inner, dict) else range(len(inner))
            paths += [(*path, step) for step in steps]
    chosen = paths[int(place * (len(paths) - 1))]
    if not chosen:
        return junk
    changed = inner = json.loads(json.dumps(content))
    for step in chosen[:-1]:
        inner = inner[step]
    inner[chosen[-1]] = junk
    return changed


@fuzz(300)
@given(place=st.floats(0, 1), junk=st.sampled_from(JUNK))
def test_a_forged_manifest_is_read_or_refused(originals, place, junk):
    (path,) = [path for path in originals if path.name == MANIFEST]
    content = replaced(json.loads(originals[path]), place, junk)
    if isinstance(content, dict):
        content["digest"] = digest_of(content)  # as who forged it would sign it
    path.write_text(json.dumps(content))
    try:
        open_set(path)
    except ValueError as error:
        assert len(str(error)) < 1000


@fuzz(300)
@given(place=st.floats(0, 1), junk=st.sampled_from(JUNK))
def test_a_forged_record_is_read_or_refused(originals, place, junk):
    (path,) = [path for path in originals if path.name == "x.parquet"]
    path.write_bytes(originals[path])
    whole = pq.read_table(path)
    (key,) = [key for key in whole.schema.metadata if key == b"transferability"]
    content = replaced(json.loads(whole.schema.metadata[key]), place, junk)
    pq.write_table(whole.replace_schema_metadata({key: json.dumps(content)}), path)
    try:
        read_record(path)
    except ValueError as error:
        assert len(str(error)) < 1000
