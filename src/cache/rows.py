"""Rows kept by content: tables of images under one key, each computed once."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow.dataset import dataset

from src.utils.files import atomic_write, writing
from src.utils.processes import from_first_process, is_first_process

log = logging.getLogger(__name__)

Name = TypeVar("Name")
Keep = Callable[[Mapping[Name, pa.Table]], None]
"""Takes rows of finished images while a pass lasts, all rows of each image at once."""
Compute = Callable[[Mapping[Name, np.ndarray], np.ndarray, Keep[Name]], Mapping[Name, pa.Table]]
"""(index of missing images by name, index of all of them, keep) to new rows of all processes."""

_ORDER = ("eps_255", "iteration", "cutoff", "frequency_low")


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


def compute_once(
    rows: Rows,
    keys: Mapping[Name, str],
    wanted: Mapping[Name, np.ndarray],
    compute: Compute[Name],
    *,
    large: Collection[Name] = (),
    refresh: bool = False,
) -> dict[Name, pa.Table]:
    """Return the rows of entries, sorted; compute the missing ones under the entries' locks.

    Where processes share a job, the first one alone gets the rows.

    Args:
        rows: Store of the entries.
        keys: Keys of the entries by name.
        wanted: Index of the images whose rows are asked for, int64 (n,), by name.
        compute: Called at most once, with what is missing.
        large: Names of entries of which the index alone is returned.
        refresh: Remove the stored rows first.
    """
    with ExitStack() as locks:
        tables = dict[Name, pa.Table]()
        if is_first_process():
            if refresh:
                rows.discard(keys.values())
            tables = _read(rows, keys, large)
            if incomplete := [keys[name] for name in _find_missing(wanted, tables)]:
                locks.enter_context(rows.locked(incomplete))
                tables = _read(rows, keys, large)
        missing = from_first_process(_find_missing(wanted, tables))

        def keep(parts: Mapping[Name, pa.Table]) -> None:
            for name in keys.keys() & parts.keys():
                rows.add(keys[name], parts[name])

        if missing:
            new = compute(missing, np.unique(np.concatenate(list(missing.values()))), keep)
            if is_first_process():
                for name in (new.keys() & missing.keys()) - set(large):
                    tables[name] = _merge(tables.get(name), new[name])
                    rows.replace(keys[name], tables[name])
                small = {name: index for name, index in missing.items() if name not in large}
                for name, index in _find_missing(small, tables).items():
                    lost = index[:5].tolist()
                    raise RuntimeError(f"{name}: rows of {len(index)} images are lost: {lost}")
        return {
            name: _sort(table.filter(pc.is_in(table["index"], pa.array(wanted[name]))))
            for name, table in tables.items()
        }


def _read(rows: Rows, keys: Mapping[Name, str], large: Collection[Name]) -> dict[Name, pa.Table]:
    """Return the tables of entries that have rows, of large ones the index alone."""
    tables = {
        name: rows.read(key, ["index"] if name in large else None) for name, key in keys.items()
    }
    return {name: table for name, table in tables.items() if table is not None}


def _find_missing(
    wanted: Mapping[Name, np.ndarray], tables: Mapping[Name, pa.Table]
) -> dict[Name, np.ndarray]:
    """Return the index of images without rows by name, where there are any."""
    missing = {
        name: np.setdiff1d(index, tables[name]["index"].to_numpy() if name in tables else [])
        for name, index in wanted.items()
    }
    return {name: index for name, index in missing.items() if len(index)}


def _merge(old: pa.Table | None, new: pa.Table) -> pa.Table:
    """Return the rows of both tables, of images in both the new ones."""
    if old is None:
        return new
    rest = old.filter(pc.invert(pc.is_in(old["index"], new["index"])))
    return pa.concat_tables([rest, new])


def _name(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _sort(table: pa.Table) -> pa.Table:
    """Return rows of one target by ascending budget, cutoff or band, and then by image.

    Minimum budgets, which are no setting of their rows, come by image alone.
    """
    ascending = ("cutoff", "frequency_low") if "below_eps_255" in table.column_names else _ORDER
    keys = [(name, "ascending") for name in ascending if name in table.column_names]
    if "frequency_high" in table.column_names:
        keys.append(("frequency_high", "descending"))  # the whole spectrum before its bands
    return table.sort_by([*keys, ("index", "ascending")])
