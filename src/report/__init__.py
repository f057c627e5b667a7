"""From tables that jobs left to one HTML page of linked charts; reads nothing else."""

from src.report.stored import StoredJob, find_jobs
