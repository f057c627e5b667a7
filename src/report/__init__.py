"""Tables, figures and a page, made from the statistics of `src.analysis`."""

from src.report.galleries import gallery_images
from src.report.stored import StoredJob, find_jobs
from src.report.sweep_files import clean_accuracies, sweep_alarms, sweep_matrices

__all__ = [
    "StoredJob",
    "clean_accuracies",
    "find_jobs",
    "gallery_images",
    "sweep_alarms",
    "sweep_matrices",
]
