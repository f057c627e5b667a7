"""Charts of the diagnostics, a file each: statistics of a job's table, and the figure of all jobs'.

A file has the name of its table, and

- `summarise(table, job, rename)`: the statistics of a job's table; `rename` gives a model the name
  that tells it from another model of its name in another job;
- `draw(rows)`: the figure of all jobs' statistics, which have the columns `attack` and `source`.
"""

from src.report.diagnostics import (
    filtered,
    gradient_consistency,
    low_passed,
    similarity,
    spectra,
)

CHARTS = {
    "similarity": similarity,
    "gradient_consistency": gradient_consistency,
    "filtered": filtered,
    "spectra": spectra,
    "low_passed": low_passed,
}
"""Modules by the name of their table, in the page's order."""
