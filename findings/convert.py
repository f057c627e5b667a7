"""Rename a key and two categories in the stored records: `python -m findings.convert`."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from src.artifacts.record import JobRecord, read_record, with_record
from src.utils.files import atomic_write

RESULTS = Path(__file__).parents[1] / "docs" / "results"
CATEGORIES = {"surrogate": "backward", "transform": "input"}


def main() -> None:
    """Convert every table, and show that no row and no other fact changes."""
    tables = rows = 0
    for path in sorted(RESULTS.rglob("*.parquet")):
        table = pq.read_table(path)
        stored = (table.schema.metadata or {}).get(b"transferability")
        if stored is None:
            continue
        content = json.loads(stored)
        record = JobRecord.model_validate(rename(content["job"]))
        with atomic_write(path) as temporary:
            pq.write_table(
                with_record(table, content["table"], record), temporary, compression="zstd"
            )
        assert pq.read_table(path).to_pandas().equals(table.to_pandas()), path
        assert read_record(path) == (content["table"], record), path
        assert "surrogate" not in json.dumps(record.model_dump(mode="json")), path
        tables, rows = tables + 1, rows + len(table)
    print(f"{tables} tables, {rows} rows")


def rename(job: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose keys and categories have their present names."""
    about = job["config"]["attack"].get("about", {})
    if "category" in about:
        about["category"] = CATEGORIES.get(about["category"], about["category"])
    return {("backward_rule" if key == "surrogate" else key): job[key] for key in job}


if __name__ == "__main__":
    main()
