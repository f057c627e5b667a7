"""From what jobs left in their folders to one HTML page of linked charts."""

from src.report.stored import StoredJob, find_jobs
