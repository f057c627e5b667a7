"""Measurements of each batch of a job, one file per table."""
