"""Statistics and charts of the diagnostics, one module per table.

A module has the name of its table, and two functions:

- `summarise(table, job, rename)` computes the statistics of a job's table. `rename` gives a model a
  unique name if another job has a different model with the same name;
- `draw(rows)` draws the statistics of all jobs; the rows have the columns `attack` and `source`.
"""

from src.report.diagnostics import (
    filtered,
    low_passed,
    similarity,
    spectra,
)

CHARTS = {
    "similarity": similarity,
    "filtered": filtered,
    "spectra": spectra,
    "low_passed": low_passed,
}
"""Modules by the name of their table, in the order of the page."""
