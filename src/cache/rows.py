"""Stored rows: tables with rows per image, found by the key of everything that decides them."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow.dataset import dataset

from ..utils.files import atomic_write, in_turn

log = logging.getLogger(__name__)

FOLDER = "rows-3"
"""Folder of the rows in a cache; its number rises if their format changes."""
_IN_USE = 3600  # seconds since last use before an attack's rows may be removed


class Rows:
    """Store of rows: one folder per attack (or set of models), with one subfolder per table.

    A subfolder has Parquet files, each with the rows of some images and keys. A file's name is the
    SHA-256 of its place and bytes, so damage and moved files are noticed. The columns `key`,
    `index` and `image` identify rows; all rows with the same key and image are in one file.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / FOLDER

    def read(
        self, origin: str, table: str, columns: Sequence[str] | None = None
    ) -> pa.Table | None:
        """Return a table's rows without duplicates, or some of their columns; None without rows.

        Damaged files are removed.
        """
        tables = list[pa.Table]()
        for path in self._files(origin, table):
            if (read := _load(path, columns)) is None:
                continue
            tables.append(read.append_column("file", pa.repeat(len(tables), len(read))))
        if not tables:
            return None
        with suppress(OSError):  # another process has removed it, or the cache is read-only
            os.utime(self.folder / origin)
        rows = pa.concat_tables(tables)
        if len(tables) > 1:  # two processes may have computed the same rows
            frame = rows.select(["key", "index", "image", "file"]).to_pandas()
            first = frame.groupby(["key", "index", "image"], sort=False)["file"].transform("min")
            rows = rows.filter(pa.array(frame["file"] == first))
        return rows.drop_columns("file")

    def select(self, origin: str, table: str, key: str, index: Sequence[int]) -> pa.Table | None:
        """Return the rows for a key and some images, one row per image; None without rows.

        Files are not checked for damage.
        """
        if not (files := self._files(origin, table)):
            return None
        wanted = (pc.field("key") == key) & pc.field("index").isin(list(index))
        return dataset(list(map(str, files))).to_table(filter=wanted)

    def add(self, origin: str, table: str, rows: pa.Table) -> Path:
        """Store rows for more images or keys in a new file; return its path."""
        sink = pa.BufferOutputStream()
        if "adversarial" in rows.column_names:  # noise cannot be compressed
            pq.write_table(rows, sink, row_group_size=64, compression="none", use_dictionary=False)
        else:
            pq.write_table(rows, sink)
        content = memoryview(sink.getvalue())
        folder = self.folder / origin / table
        path = folder / f"{_name(folder, content)}.parquet"
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return path

    def merge(self, origin: str, table: str) -> None:
        """Merge all files of a table into one."""
        files = self._files(origin, table)
        rows = self.read(origin, table) if len(files) > 1 else None
        if rows is not None:
            written = self.add(origin, table, rows)
            for path in files:
                if path != written:
                    path.unlink(missing_ok=True)

    def discard(self, origin: str, table: str, keys: Sequence[str]) -> None:
        """Remove all rows with these keys."""
        for path in self._files(origin, table):  # without files that are being written
            if (rows := _load(path)) is None:
                continue
            others = rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(keys, pa.string()))))
            if len(others) < len(rows):
                if len(others):
                    self.add(origin, table, others)
                path.unlink(missing_ok=True)  # last, so that a kill loses no rows

    @contextmanager
    def locked(self, origins: Sequence[str]) -> Iterator[None]:
        """Hold the locks of attacks or models; wait for a process that computes their rows."""
        with ExitStack() as held:
            for origin in sorted(set(origins)):  # a fixed order avoids deadlocks
                lock = self.folder / "locks" / origin
                held.enter_context(in_turn(lock, "compute the same rows"))
            yield

    def finish(self, origin: str, job: str, images: str) -> None:
        """Note in an attack's folder that all rows of a job are stored.

        `job` is its key, and `images` the digest of its images.
        """
        with suppress(OSError):  # the cache is read-only
            (self.folder / origin / f"finished-{job}-{images}").touch()

    def is_finished(self, job: str, images: Callable[[], str]) -> bool:
        """Return True if all rows of a job were stored, and rows of its attack are still there.

        `images` computes the digest of its images. It is called if a job of this key has finished.
        """
        marks = [*self.folder.glob(f"*/finished-{job}-*")]
        marks = [mark for mark in marks if any(mark.parent.glob("*/*.parquet"))]
        return bool(marks) and images() in {mark.name.rpartition("-")[2] for mark in marks}

    def shrink(self, total_gb: float) -> None:
        """Remove the least recently used rows until all rows need at most `total_gb` gigabytes.

        Rows used in the last hour, and rows that a process is computing, are kept.
        """
        sizes = self.sizes()
        excess = sum(sizes.values()) - total_gb * 1e9
        by_age = sorted((_stat(folder)[1], folder) for folder in sizes)
        for used, folder in by_age:
            if excess <= 0 or used > time.time() - _IN_USE:
                return
            lock = FileLock(self.folder / "locks" / folder.name, timeout=0)
            with suppress(Timeout, OSError), lock:  # in use, or the cache is read-only
                shutil.rmtree(folder, ignore_errors=True)
                excess -= sizes[folder]

    def sizes(self) -> Mapping[Path, int]:
        """Return the size in bytes per folder of an attack or of models."""
        return {
            folder: sum(_stat(path)[0] for path in folder.glob("*/*.parquet"))
            for folder in self.folder.glob("[0-9a-f]*")
        }

    def _files(self, origin: str, table: str) -> list[Path]:
        return sorted((self.folder / origin / table).glob("[0-9a-f]*.parquet"))


def _load(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return a file's rows; None if it is gone, or if it is damaged or moved (then remove it)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if _name(path.parent, content) == path.stem:
        return pq.read_table(pa.BufferReader(content), columns=columns)
    log.warning("%s is damaged; its rows are computed again.", path)
    with suppress(OSError):  # the cache is read-only
        path.unlink(missing_ok=True)
    return None


def _stat(path: Path) -> tuple[int, float]:
    """Return the size of a file or folder and the time of its last use; zeros if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    return stat.st_size, stat.st_mtime


def _name(folder: Path, content: bytes | memoryview) -> str:
    """Return a digest of a file's place, `origin/table`, and of its bytes."""
    digest = hashlib.sha256("/".join(folder.parts[-2:]).encode())
    digest.update(content)
    return digest.hexdigest()[:16]
