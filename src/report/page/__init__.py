"""The HTML page of linked charts, built from the tables of finished jobs."""
