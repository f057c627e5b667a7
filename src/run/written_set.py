"""Set of adversarial images that a job saves: one parquet file with the job's record.

A row is an image, in the order of the index: `index`, `label` and, null where the attack is
untargeted, `target_label`; `clean`, the 3 H W grey levels of the clean image, and `adversarial`,
the K 3 H W ones of its versions at the record's K budgets, both as bytes.
"""

import math
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from src.artifacts.layout import SET
from src.artifacts.record import JobRecord, read_record, with_record
from src.config.settings import AttackSettings
from src.data import LabelledImages
from src.images.saved_images import LazyImages, SavedImages
from src.run.passes import adversarial_images
from src.run.stages import Job, Results
from src.utils.defended_names import split_source
from src.utils.files import atomic_write
from src.utils.refusals import first_line

_TABLE = "adversarial"
_TOGETHER, _GROUP = 256, 16  # images that are written, and that are read, at once
_NUMBERS = ("index", "label", "target_label")
_PIXELS = ("clean", "adversarial")
_SCHEMA = pa.schema(dict.fromkeys(_NUMBERS, pa.int64()) | dict.fromkeys(_PIXELS, pa.binary()))


def write_set(job: Job, results: Results, record: JobRecord, folder: Path) -> None:
    """Write a job's adversarial images, rounded inside their balls; all of them or no file."""
    rows = results.tables[job.variants.primary]
    target_labels = dict(zip(*(rows[name].to_pylist() for name in _NUMBERS[::2]), strict=True))
    schema = with_record(_SCHEMA.empty_table(), _TABLE, record).schema
    options = {"write_page_checksum": True, "use_dictionary": False, "write_statistics": False}
    with atomic_write(folder / SET) as path, pq.ParquetWriter(path, schema, **options) as file:
        for first in range(0, len(job.images), _TOGETHER):
            index = job.images.indices[first : first + _TOGETHER].tolist()
            attacked = adversarial_images(job, index)
            levels = torch.stack([batch.rounded(batch.adversarial) for batch in attacked], dim=1)
            batch = attacked[0].batch
            columns = {
                "index": index,
                "label": batch.labels.numpy(),
                "target_label": [target_labels[number] for number in index],
                "clean": [image.tobytes() for image in batch.images.numpy()],
                "adversarial": [versions.tobytes() for versions in levels.numpy()],
            }
            file.write_table(pa.table(columns, schema=schema), row_group_size=_GROUP)


def read_set(folder: Path) -> SavedImages:
    """Open a job's set, of which all images must be there; they are read when asked for."""
    path = folder / SET
    table, record = read_record(path) or ("", None)
    if table != _TABLE or record is None:
        raise ValueError(f"{path} holds no adversarial images of this program.")
    try:
        return _open(path, record)
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(
            f"{path} is damaged, incomplete or of another version ({first_line(error)[:400]})."
        ) from error


def _open(path: Path, record: JobRecord) -> SavedImages:
    attack = AttackSettings.model_validate(record.config["attack"])
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        layout = file.metadata
        if not file.schema_arrow.equals(_SCHEMA):
            raise ValueError(f"its columns are not {', '.join(_SCHEMA.names)}")
        if layout.num_rows != record.images:
            raise ValueError(f"it holds {layout.num_rows} of {record.images} images")
        table = file.read(_NUMBERS[: 2 + (attack.target_label is not None)]).to_pydict()
    numbers = {name: np.array(column, np.int64) for name, column in table.items()}
    starts = np.cumsum([0, *(layout.row_group(n).num_rows for n in range(layout.num_row_groups))])
    side = math.isqrt(record.values // 3)
    counts = {"clean": 1, "adversarial": len(record.budgets) - 1}

    @lru_cache(maxsize=4)
    def group(name: str, number: int) -> pa.ChunkedArray:
        # Opened anew: processes share no handle.
        with pq.ParquetFile(path, metadata=layout, page_checksum_verification=True) as file:
            return file.read_row_group(number, [name], use_threads=False)[name]

    def read(name: str, row: int) -> Tensor:
        """Return an image's levels, uint8 (1 or K, 3, H, W)."""
        number = int(np.searchsorted(starts, row, side="right")) - 1
        try:
            levels = bytearray(group(name, number)[row - int(starts[number])].as_py())
            return torch.frombuffer(levels, dtype=torch.uint8).view(counts[name], 3, side, side)
        except Exception as error:  # of many kinds, too
            raise ValueError(f"{path} is damaged ({first_line(error)[:400]}).") from error

    clean = LazyImages(lambda row: read("clean", row)[0], record.images)
    return SavedImages(
        source=record.source,
        attack=attack,
        budgets_255=record.budgets[1:],
        dataset=record.dataset,
        index=numbers["index"],
        clean=LabelledImages(
            clean, numbers["label"], record.class_names, numbers.get("target_label")
        ),
        read=partial(read, "adversarial"),
        ensemble=record.config["ensemble"],
        weights={
            name: record.weights[name] for name in split_source(record.source).target.split("+")
        },
        data=record.data,
    )
