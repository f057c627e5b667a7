"""Charts as Vega-Lite specifications, one function each: tables in, a chart out."""

from src.report.charts.answer import answer_chart
from src.report.charts.clean import (
    MOST_CLASSES,
    class_confidence_chart,
    class_counts_chart,
    profiles_chart,
)
from src.report.charts.compared import areas_chart, differences_chart, excess_chart, variants_chart
from src.report.charts.confidence import hypothesis_chart, trajectories_chart
from src.report.charts.mechanisms import (
    filtered_chart,
    low_pass_chart,
    similarity_chart,
    spectra_chart,
)

__all__ = [
    "MOST_CLASSES",
    "answer_chart",
    "areas_chart",
    "class_confidence_chart",
    "class_counts_chart",
    "differences_chart",
    "excess_chart",
    "filtered_chart",
    "hypothesis_chart",
    "low_pass_chart",
    "profiles_chart",
    "similarity_chart",
    "spectra_chart",
    "trajectories_chart",
    "variants_chart",
]
