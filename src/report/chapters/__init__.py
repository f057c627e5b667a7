"""The chapters of a report, each from stored jobs to words, tables and drawings."""
