"""The files of a job that people read."""
