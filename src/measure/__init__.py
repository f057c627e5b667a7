"""Measurements that a job makes of each batch, one file per table."""
