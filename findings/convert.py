"""Convert the stored tables to the present format: `python -m findings.convert`.

Every table gets all columns of its kind, and every record all its fields. The numbers in an image,
which the first tables do not tell, are those of the tables that hold the same images or, for
CIFAR-10 from a folder, of its 32 pixels.
"""

from pathlib import Path

import pyarrow.parquet as pq

from src.store.record import JobRecord, read_record, with_record
from src.store.tables import read_job_table
from src.utils.files import atomic_write
from src.utils.tables import read_table

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PHOTOGRAPHS, CIFAR = 3 * 299**2, 3 * 32**2


def main() -> None:
    """Convert every table, and show that no row, value or fact changes."""
    paths = [path for path in sorted(RESULTS.rglob("*.parquet")) if read_record(path)]
    records = {path: read_record(path)[1] for path in paths}  # type: ignore[index]
    known = {record.data: record.values for record in records.values() if record.values}
    rows = 0
    for path, record in records.items():
        guessed = {"image_folder": CIFAR, "image_csv": PHOTOGRAPHS}.get(record.dataset)
        values = record.values or known.get(record.data) or guessed
        assert values is not None
        assert guessed in (None, values), path
        rows += convert(path, record.model_copy(update={"values": values}))
    print(f"{len(paths)} tables, {rows} rows, {len(known)} sets of images of known size")


def convert(path: Path, record: JobRecord) -> int:
    """Write a table anew, compare it with what it was, and return its number of rows."""
    name, before = read_record(path) or ("", record)
    was, table = read_table(path), read_job_table(path, path.stem, record)
    with atomic_write(path) as temporary:
        pq.write_table(with_record(table, name, record), temporary, compression="zstd")
    now = read_table(path)
    dropped = set(was.column_names) - set(now.column_names)
    assert dropped <= {"norm"}, dropped  # of filtered perturbations, which nothing reads
    for column in set(was.column_names) - dropped:
        same = was[column].cast(now[column].type).to_pandas().equals(now[column].to_pandas())
        assert same and was[column].null_count == now[column].null_count, (path, column)
    again = read_record(path)
    assert again is not None and again[0] == name == path.stem
    assert again[1].model_copy(update={"values": before.values}) == before
    return len(now)


if __name__ == "__main__":
    main()
