"""Rows kept by content: tables of images, found by the key of all that decides their numbers."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow.dataset import dataset

from src.utils.files import atomic_write, writing

log = logging.getLogger(__name__)

FOLDER = "rows-2"
"""Folder of the rows in a cache; another form of them gets another number."""
_IN_USE = 3600  # seconds after its last use in which an attack's rows are not removed


class Rows:
    """Rows in a folder: of each attack, or models, a folder, and in it one for each table.

    These hold Parquet files, each with rows of some images under some keys, and named by the
    SHA-256 of its bytes, which shows damage. The columns `key`, `index` and `image` tell rows
    apart: those of one key and image lie in one file.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / FOLDER

    def read(
        self, origin: str, table: str, columns: Sequence[str] | None = None
    ) -> pa.Table | None:
        """Return a table's rows, or some columns of them, each once; None: there are none.

        A damaged file is removed.
        """
        tables = list[pa.Table]()
        for path in self._files(origin, table):
            if (read := _load(path, columns)) is None:
                continue
            tables.append(read.append_column("file", pa.repeat(len(tables), len(read))))
        if not tables:
            return None
        with suppress(FileNotFoundError):  # removed by another process meanwhile
            os.utime(self.folder / origin)
        rows = pa.concat_tables(tables)
        if len(tables) > 1:  # two processes may have computed the same rows
            frame = rows.select(["key", "index", "image", "file"]).to_pandas()
            first = frame.groupby(["key", "index", "image"], sort=False)["file"].transform("min")
            rows = rows.filter(pa.array(frame["file"] == first))
        return rows.drop_columns("file")

    def select(self, origin: str, table: str, key: str, index: Sequence[int]) -> pa.Table | None:
        """Return the rows of a key and some images, of which each has one; None: no rows.

        Damage is not looked for.
        """
        if not (files := self._files(origin, table)):
            return None
        wanted = (pc.field("key") == key) & pc.field("index").isin(list(index))
        return dataset(list(map(str, files))).to_table(filter=wanted)

    def add(self, origin: str, table: str, rows: pa.Table) -> Path:
        """Keep rows of further images or keys; return their file."""
        sink = pa.BufferOutputStream()
        if "adversarial" in rows.column_names:  # noise, which no packing makes smaller
            pq.write_table(rows, sink, row_group_size=64, compression="none", use_dictionary=False)
        else:
            pq.write_table(rows, sink)
        content = memoryview(sink.getvalue())
        path = self.folder / origin / table / f"{_name(content)}.parquet"
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return path

    def merge(self, origin: str, table: str) -> None:
        """Write all rows of a table as one file."""
        files = self._files(origin, table)
        rows = self.read(origin, table) if len(files) > 1 else None
        if rows is not None:
            written = self.add(origin, table, rows)
            for path in files:
                if path != written:
                    path.unlink(missing_ok=True)

    def discard(self, origin: str, table: str, keys: Sequence[str]) -> None:
        """Remove all rows of some keys."""
        for path in self._files(origin, table):  # none that is being written
            if (rows := _load(path)) is None:
                continue
            others = rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(keys, pa.string()))))
            if len(others) < len(rows):
                path.unlink(missing_ok=True)
                if len(others):
                    self.add(origin, table, others)

    @contextmanager
    def locked(self, origins: Sequence[str]) -> Iterator[None]:
        """Hold the locks of attacks or models; a process that computes their rows is waited for."""
        with ExitStack() as held:
            for origin in sorted(set(origins)):  # in one order, so that no two wait for each other
                lock = self._lock(origin)
                with writing(Path(lock.lock_file)):
                    try:
                        lock.acquire(timeout=0)
                    except Timeout:
                        log.info("Waiting for another process that computes the same rows.")
                        lock.acquire()
                held.callback(lock.release)
            yield

    def shrink(self, total_gb: float) -> None:
        """Remove what was used longest ago, until all rows take so many gigabytes at most.

        What was used in the last hour stays, and what a process computes.
        """
        sizes = self.sizes()
        excess = sum(sizes.values()) - total_gb * 1e9
        by_age = sorted((_stat(folder)[1], folder) for folder in sizes)
        for used, folder in by_age:
            if excess <= 0 or used > time.time() - _IN_USE:
                return
            lock = self._lock(folder.name)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            excess -= sizes[folder]
            lock.release()

    def sizes(self) -> Mapping[Path, int]:
        """Return the bytes of each attack's or models' rows, by folder."""
        return {
            folder: sum(_stat(path)[0] for path in folder.glob("*/*.parquet"))
            for folder in self.folder.glob("[0-9a-f]*")
        }

    def _files(self, origin: str, table: str) -> list[Path]:
        return sorted((self.folder / origin / table).glob("[0-9a-f]*.parquet"))

    def _lock(self, origin: str) -> FileLock:
        """Return a lock, whose file stays: others may wait for it."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / origin)


def _load(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return a file's rows; None if it is damaged, and removed, or gone since it was listed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if _name(content) == path.stem:
        return pq.read_table(pa.BufferReader(content), columns=columns)
    log.warning("%s is damaged; its rows are computed again.", path)
    path.unlink(missing_ok=True)
    return None


def _stat(path: Path) -> tuple[int, float]:
    """Return the size of a file or folder and when it was used; 0 where it is gone meanwhile."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    return stat.st_size, stat.st_mtime


def _name(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
