"""The sections of the page: charts with captions that hold the numbers."""

from src.report.sections.answer import answer, answer_sentence
from src.report.sections.clean import clean, clean_sentence
from src.report.sections.compared import compared
from src.report.sections.confidence import hypothesis, images
from src.report.sections.mechanisms import mechanisms

__all__ = [
    "answer",
    "answer_sentence",
    "clean",
    "clean_sentence",
    "compared",
    "hypothesis",
    "images",
    "mechanisms",
]
