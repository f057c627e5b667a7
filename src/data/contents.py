"""Contents of image files, kept between runs: a known file is neither read nor decoded again."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from src.utils.cache import sha256_of
from src.utils.checks import first_line
from src.utils.files import writing
from src.utils.tables import read_table, write_table

log = logging.getLogger(__name__)

_SETTLED = 2 * 10**9  # ns; a younger file may change again and have the same time
_BLOCK = 4096  # files that wait for a thread at once
_SCHEMA = pa.schema(
    {"file": pa.binary(), "sha256": pa.string(), "height": pa.int32(), "width": pa.int32()}
)


class Content(NamedTuple):
    """SHA-256 of a file or of pixels, in hexadecimal digits, and the image's size in pixels."""

    sha256: str
    height: int
    width: int


def contents_of_files(
    files: Mapping[int, Path],
    decode: Callable[[int], np.ndarray],
    index: Path | None,
    advance: Callable[[int], object],
) -> dict[int, Content]:
    """Return the content of each file; those that the index lacks are read by several threads.

    Args:
        files: image files by number.
        decode: returns the image of a number, (H, W, 3), or raises; the first error is passed on.
        index: parquet file of contents by path, size, inode and times of change, made and added to
            here; None: nothing is kept. Of several processes one reads, and the others wait.
        advance: called with the number of images done.
    """
    if not files:
        return {}
    keys = {number: _key(path) for number, path in files.items()}

    def read(number: int) -> Content:
        height, width = decode(number).shape[:2]
        return Content(sha256_of(files[number]), height, width)

    with nullcontext() if index is None else _lock(index):
        kept = _SCHEMA.empty_table() if index is None else _kept(index)
        wanted = pa.array([key for key in keys.values() if key], pa.binary())
        rows = kept.filter(pc.is_in(kept["file"], wanted)).to_pylist()
        known = {row.pop("file"): Content(**row) for row in rows}
        found = {number: known[key] for number, key in keys.items() if key in known}
        advance(len(found))
        missing, new = [number for number in files if number not in found], {}
        try:
            with ThreadPoolExecutor() as pool:
                for start in range(0, len(missing), _BLOCK):
                    block = missing[start : start + _BLOCK]
                    for number, content in zip(block, pool.map(read, block), strict=True):
                        found[number] = content
                        if key := keys[number]:
                            new[key] = content
                        advance(1)
        finally:  # where one is refused, those before it need no second reading
            if index is not None and new:
                rows = [{"file": key, **content._asdict()} for key, content in new.items()]
                write_table(pa.concat_tables([kept, pa.Table.from_pylist(rows, _SCHEMA)]), index)
    return found


def _key(path: Path) -> bytes | None:
    """Return the path, size, inode and times of a file; None: it must be read anyway."""
    try:
        stat = path.stat()
    except OSError:  # which reading tells
        return None
    if time.time_ns() - stat.st_ctime_ns < _SETTLED:
        return None
    # No program can set the time of change of status, as `touch` does that of content.
    facts = f" {stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return os.fsencode(path.absolute()) + facts.encode()


def _lock(index: Path) -> FileLock:
    with writing(index):
        index.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(index.with_name(f".{index.name}.lock"))


def _kept(index: Path) -> pa.Table:
    """Return the index's rows, none where it is missing or damaged."""
    if not index.exists():
        return _SCHEMA.empty_table()
    try:
        return read_table(index).cast(_SCHEMA)
    except (ValueError, pa.ArrowException) as error:  # damaged, or of other columns
        log.warning("%s: %s; it is made again.", index, first_line(error))
        return _SCHEMA.empty_table()
