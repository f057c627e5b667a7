"""The report of finished jobs: tables, charts and one HTML page, built from stored tables."""
