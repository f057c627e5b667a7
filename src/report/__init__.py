"""Report of finished jobs: one HTML page of linked charts, made of the tables in their folders."""
