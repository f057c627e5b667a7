"""Damaged files: every reader reads them or refuses them by ValueError, whatever the damage."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from src.config.settings import SavedSettings
from src.data import ImageDataset, LabelledImages
from src.data.image_csv import image_csv
from src.data.image_folder import image_folder
from src.experiment.saved_set import open_saved_images
from src.models import load_weights
from src.report.facts import facts
from src.store.jobs import find_jobs
from src.store.tables import read_alarms

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
CSV = b"ImageId,TrueLabel,TargetClass\nx1,1,2\nx2,2,1\n"
JOB = Path(__file__).parents[2] / "docs" / "results" / "demo" / "0-fgsm-vgg_small"
TABLE = pq.read_table(JOB / "predictions.parquet")
for column, value in {"top5_classes": 1, "top5_confidences": np.float32(0.2)}.items():
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(value, 5 * len(TABLE))), 5)
    TABLE = TABLE.append_column(column, lists)
RECORD = json.loads(TABLE.schema.metadata[b"transferability"])
LEVELS = np.zeros((2, 3, 8, 8), np.uint8)
ORDER = {"index": np.arange(2), "label": np.arange(2)}
EXAMPLES = {**ORDER, "clean": LEVELS, "eps_255": np.array([1.0, 2, 4, 8])}
EXAMPLES["adversarial"] = np.zeros((4, *LEVELS.shape), np.float32)
OWN = {**ORDER, "target_label": pa.nulls(2, pa.int64()), "clean": [bytes(192)] * 2}
OWN = pa.table({**OWN, "adversarial": [bytes(4 * 192)] * 2})
JOB_OF_OWN = {**RECORD["job"], "images": 2, "values": 192}
OWN_RECORD = json.dumps({**RECORD, "table": "adversarial", "job": JOB_OF_OWN})
OWN = OWN.replace_schema_metadata({"transferability": OWN_RECORD})


def content(write: Callable[[Path], object]) -> bytes:
    """Return what a function writes to a path."""
    with TemporaryDirectory() as folder:
        write(Path(folder, "file"))
        return Path(folder, "file").read_bytes()


def packed(kind: str) -> bytes:
    def write(path: Path) -> None:
        for name in ("a", "b"):
            (path.parent / "x" / name).mkdir(parents=True)
            PICTURE.save(path.parent / "x" / name / "1.png")
        shutil.move(shutil.make_archive(f"{path}-", kind, path.parent / "x"), path)

    return content(write)


def read_image(path: Path) -> None:
    ImageDataset(LabelledImages([path], np.array([0]))).digest()


def read_csv(path: Path) -> None:
    image_csv("test", root=str(path.parent), images=".")


def read_archive(path: Path) -> None:
    image_folder("test", root=str(path), cache_dir=str(path.parent / "cache"))


def read_weights(path: Path) -> None:
    load_weights(torch.nn.Linear(3, 2), path)


def read_own(path: Path) -> None:
    open_saved_images(SavedSettings(path=str(path.parent)))


def read_record(path: Path) -> None:
    named = TABLE.replace_schema_metadata({b"transferability": path.read_bytes()})
    pq.write_table(named, path.with_name("predictions.parquet"))
    read_job(path)


def read_job(path: Path) -> None:
    if not path.with_name("predictions.parquet").exists():
        pq.write_table(TABLE, path.with_name("predictions.parquet"))
    (job,) = find_jobs([path.parent])
    assert len(job.predictions) == 5000 and len(job.clean) == 1000 and job.images is not None
    assert len(job.top_five("vgg_small", [int(job.clean["index"][0])])) == 5
    assert facts([job]) and read_alarms(path.parent) is not None


def arrays(**changes: object) -> bytes:
    kept = {name: array for name, array in {**EXAMPLES, **changes}.items() if array is not None}
    return written(np.savez, **kept)


def written(save: Callable[..., object], *arrays: object, **named: object) -> bytes:
    with io.BytesIO() as file:
        save(file, *arrays, **named)
        return file.getvalue()


def record(**changes: object) -> bytes:
    return json.dumps({**RECORD, "job": {**RECORD["job"], **changes}}).encode()


def table(edited: pa.Table) -> bytes:
    kept = edited.replace_schema_metadata(TABLE.schema.metadata)
    return content(lambda path: pq.write_table(kept, path))


def cell(name: str, value: object) -> bytes:
    """Return the table with another value in its first row."""
    kind = TABLE.schema.field(name).type
    first = pa.table({name: pa.array([value], kind)})
    column = pa.concat_tables([first, TABLE.select([name]).slice(1)])[name]
    return table(TABLE.set_column(TABLE.column_names.index(name), name, column))


READERS = {
    "images.csv": (CSV, read_csv),
    "x.png": (content(lambda path: PICTURE.save(path, "PNG")), read_image),
    "x.jpg": (content(lambda path: PICTURE.save(path, "JPEG")), read_image),
    "x.tar": (packed("tar"), read_archive),
    "x.tar.gz": (packed("gztar"), read_archive),
    "x.zip": (packed("zip"), read_archive),
    "x.pt": (content(lambda path: torch.save(STATE, path)), read_weights),
    "x.safetensors": (content(lambda path: save_file(STATE, path)), read_weights),
    "images.parquet": (content(lambda path: pq.write_table(OWN, path)), read_own),
    "examples.npz": (arrays(), read_job),
    "images.npz": (arrays(label=None, eps_255=None, adversarial=None), read_job),
    "alarms.json": (b'[{"name": "few_images", "finding": "2 of 3"}]', read_job),
    "record.json": (record(), read_record),
    "predictions.parquet": (table(TABLE), read_job),
}
CELLS = [("label", 99), ("label", -99), ("predicted", 99), ("target_label", 10), ("index", -1)]
CELLS += [("confidence", value) for value in (7.0, -1.0, np.nan, np.inf, None)]
CELLS += [("index", TABLE["index"][1].as_py()), ("eps_255", 3.0), ("target", "x")]
CELLS += [("top5_classes", [99] * 5), ("top5_confidences", [None] * 5)]
HALF = len(TABLE) // 2
MUTANTS = {
    "examples.npz": [b"", arrays(eps_255=None), arrays(index=np.arange(3)), arrays(label=[10, 0])],
    "images.npz": [b"", arrays(label=None), arrays(x=1)],
    "alarms.json": [b"[1]", b"[null]", b'"abc"', b'[{"name":1}]', b"", b"\xff"],
    "record.json": [
        *(b"[" * 100_000, record(config={}), record(targets=["vgg16"] * 2)),
        *(record(config={**RECORD["job"]["config"], "attack": each}) for each in (None, {})),
        record(class_names=["0"]),
    ],
    "predictions.parquet": [
        *(table(TABLE.drop_columns([name])) for name in TABLE.column_names),
        *(cell(name, value) for name, value in CELLS),
        table(TABLE.set_column(3, "target", TABLE["top5_classes"])),
        *(table(TABLE.slice(0, HALF)), table(TABLE.slice(0, 0))),
        *(table(TABLE.take(list(range(0, 2 * HALF, 2)))), table(pa.concat_tables([TABLE] * 2))),
    ],
}
TOKENS = [b'"', b"(", b"[", b"{", b"\0", b"\n", b"-1", b"1e400", b"null", b"9" * 30, b"1" * 140_000]
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


@pytest.mark.parametrize("name", MUTANTS)
def test_what_no_program_writes_is_refused_by_name(tmp_path, name):
    whole, read = READERS[name]
    read_well = []
    for number, mutant in enumerate([whole, *MUTANTS[name]]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).write_bytes(mutant)
        try:
            read(tmp_path / str(number) / name)
            read_well.append(number)
        except ValueError as error:
            assert name.replace("record.json", "predictions.parquet") in str(error)
            assert len(str(error)) < 1000
    assert read_well == [0]
