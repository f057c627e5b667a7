"""Statistics as pure functions of the predictions table: no model, no GPU, no rerun."""

from src.analysis.rates import CLEAN, PROTOCOLS, format_cell, matrix, rates, wilson_interval

__all__ = ["CLEAN", "PROTOCOLS", "format_cell", "matrix", "rates", "wilson_interval"]
