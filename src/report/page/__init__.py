"""One HTML page of linked charts, made of the tables of finished jobs."""
