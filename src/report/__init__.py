"""The report of finished jobs: tables, charts and one HTML page, built from stored tables."""

from typing import TYPE_CHECKING

from ..utils.package import lazily

if TYPE_CHECKING:
    from .beside import at_reference, cost_of, rank_untuned, read_preset
    from .charts.theme import theme
    from .grid import Cell, Grid
    from .page.frame import build_report
    from .page.images import PageData, compute_page_data
    from .results import Results, open_results, results_of
    from .terminal import print_matrices
    from .words import standing
else:  # the page and the charts load Altair
    _HOMES = {
        "beside": "at_reference cost_of rank_untuned read_preset",
        "charts.theme": "theme",
        "grid": "Cell Grid",
        "page.frame": "build_report",
        "page.images": "PageData compute_page_data",
        "results": "Results open_results results_of",
        "terminal": "print_matrices",
        "words": "standing",
    }
    __getattr__ = lazily(__name__, **_HOMES)
