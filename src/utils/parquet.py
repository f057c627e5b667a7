"""Parquet files with checksums that detect damage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from src.utils.files import atomic_write
from src.utils.refusals import first_line


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file atomically."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_table(path: Path, filters: Any = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or only some rows (pyarrow `filters`) and columns; refuse damage."""
    try:
        return pq.read_table(
            path, columns=columns, filters=filters, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or no parquet file ({first_line(error)}).") from error
