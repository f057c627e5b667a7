"""Rows kept by content: tables of images under one key, each computed once."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow.dataset import dataset

from src.utils.files import atomic_write, writing

log = logging.getLogger(__name__)


class Rows:
    """Entries of rows in a folder, each under the key of all that decides its numbers.

    An entry is a folder of Parquet files, each with all rows of some images (column `index`) and
    named by the SHA-256 of its bytes, which shows damage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return an entry's rows, or some columns of them, each image's once; None: no rows.

        A damaged file is removed.
        """
        tables, known = [], pa.array([], pa.int64())
        for path in sorted((self.folder / key).glob("[0-9a-f]*.parquet")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # removed by another process since it was listed
                continue
            if _name(content) != path.stem:
                log.warning("%s is damaged, and its rows are computed again.", path)
                path.unlink(missing_ok=True)
                continue
            table = pq.read_table(pa.BufferReader(content), columns=columns)
            table = table.filter(pc.invert(pc.is_in(table["index"], known)))
            known = pa.concat_arrays([known, *table["index"].chunks])
            tables.append(table)
        return pa.concat_tables(tables) if tables else None

    def select(self, key: str, index: Sequence[int]) -> pa.Table | None:
        """Return those of some images that an entry of one row an image has; None: no rows.

        Damage is not looked for.
        """
        files = sorted(map(str, (self.folder / key).glob("[0-9a-f]*.parquet")))
        if not files:
            return None
        rows = dataset(files).to_table(filter=pc.field("index").isin(list(index)))
        order = pc.index_in(pa.array(index, pa.int64()), rows["index"])
        return rows.take(order.drop_null())

    def add(self, key: str, table: pa.Table) -> Path:
        """Keep rows of further images; return their file."""
        sink = pa.BufferOutputStream()
        if "adversarial" in table.column_names:  # noise, which no packing makes smaller
            pq.write_table(table, sink, row_group_size=64, compression="none", use_dictionary=False)
        else:
            pq.write_table(table, sink)
        content = memoryview(sink.getvalue())
        path = self.folder / key / f"{_name(content)}.parquet"
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return path

    def discard(self, keys: Iterable[str]) -> None:
        """Remove all rows of some entries."""
        for key in keys:
            for path in (self.folder / key).glob("[0-9a-f]*.parquet"):  # none that is being written
                path.unlink(missing_ok=True)

    def replace(self, key: str, table: pa.Table) -> None:
        """Write all rows of an entry as one file."""
        written = self.add(key, table)
        for path in (self.folder / key).glob("*.parquet"):
            if path != written:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, keys: Sequence[str]) -> Iterator[None]:
        """Hold the locks of entries; another process that fills one of them is waited for."""
        with ExitStack() as held:
            for key in sorted(set(keys)):  # in one order, so that no two wait for each other
                path = self.folder / key / ".lock"
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lock = FileLock(path)
                    try:
                        lock.acquire(timeout=0)
                    except Timeout:
                        log.info("Waiting for another process that computes the same rows.")
                        lock.acquire()
                held.callback(lock.release)
            yield


def _name(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
