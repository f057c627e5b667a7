"""Adversarial images as files: rounded inside their budget, written whole, read with suspicion."""

from src.sets.foreign import UNKNOWN, Origin
from src.sets.reader import open_set, read_array, read_folder, read_set
from src.sets.records import AdversarialSet, Breach, budget_breaches, with_measured_budgets
from src.sets.storage import (
    StorageFormat,
    check_budget,
    exceeds,
    jpeg_round_trip,
    parse_storage,
    png_round_trip,
    round_to_8_bits,
)
from src.sets.writer import SetWriter

__all__ = [
    "UNKNOWN",
    "AdversarialSet",
    "Breach",
    "Origin",
    "SetWriter",
    "StorageFormat",
    "budget_breaches",
    "check_budget",
    "exceeds",
    "jpeg_round_trip",
    "open_set",
    "parse_storage",
    "png_round_trip",
    "read_array",
    "read_folder",
    "read_set",
    "round_to_8_bits",
    "with_measured_budgets",
]
