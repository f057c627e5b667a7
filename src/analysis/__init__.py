"""Statistics as pure functions of the predictions table: no model, no GPU, no rerun."""

from src.analysis.controls import CONTROL_NAMES, excess, excess_matrix
from src.analysis.intervals import wilson_interval
from src.analysis.matrices import CLEAN, MEASURES, format_cell, is_white_box, matrix
from src.analysis.outcomes import PROTOCOLS, target_labels, usable_protocols
from src.analysis.sanity_checks import (
    CAUSES,
    Alarm,
    alarms,
    clean_at_chance,
    over_budget,
    weaker_than_fgsm,
)
from src.analysis.trajectories import first_flips, flip_summary
from src.analysis.transfer_rates import rates, rates_by_protocol

__all__ = [
    "CAUSES",
    "CLEAN",
    "CONTROL_NAMES",
    "MEASURES",
    "PROTOCOLS",
    "Alarm",
    "alarms",
    "clean_at_chance",
    "excess",
    "excess_matrix",
    "first_flips",
    "flip_summary",
    "format_cell",
    "is_white_box",
    "matrix",
    "over_budget",
    "rates",
    "rates_by_protocol",
    "target_labels",
    "usable_protocols",
    "weaker_than_fgsm",
    "wilson_interval",
]
