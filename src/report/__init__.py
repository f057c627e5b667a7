"""Tables and figures, drawn from the statistics of `src.analysis`."""

from src.report.job_files import job_figures
from src.report.sweep_files import sweep_matrices

__all__ = ["job_figures", "sweep_matrices"]
