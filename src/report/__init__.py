"""Tables, figures and a page, made from the statistics of `src.analysis`."""

from src.report.galleries import gallery_images
from src.report.stored import HEADLINE, StoredJob, find_jobs, store_examples, store_images
from src.report.sweep_files import ALARMS, clean_accuracies, sweep_alarms, sweep_matrices

__all__ = [
    "ALARMS",
    "HEADLINE",
    "StoredJob",
    "clean_accuracies",
    "find_jobs",
    "gallery_images",
    "store_examples",
    "store_images",
    "sweep_alarms",
    "sweep_matrices",
]
