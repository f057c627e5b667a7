"""Predictions as one data frame, from finished sweeps or from Python, with charts and tables."""
