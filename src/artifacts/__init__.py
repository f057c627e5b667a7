"""Files of a job that people read."""
