"""Storage of jobs: records, tables, and rows found by their content."""
