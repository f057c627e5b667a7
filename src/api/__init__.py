"""Use from Python: frames of predictions, and models of the catalogue."""
