"""Tables and figures, drawn from the statistics of `src.analysis`."""

from src.report.figures import curves, heat_map, save_figure
from src.report.job_files import job_figures
from src.report.pictures import series, triple
from src.report.tables import matrix_table, write_matrix_csv

__all__ = [
    "curves",
    "heat_map",
    "job_figures",
    "matrix_table",
    "save_figure",
    "series",
    "triple",
    "write_matrix_csv",
]
