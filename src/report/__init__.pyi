"""What the package offers, for editors and for imports on first use."""

from .beside import at_reference as at_reference
from .beside import cost_of as cost_of
from .beside import rank_untuned as rank_untuned
from .beside import read_preset as read_preset
from .charts.theme import theme as theme
from .grid import Cell as Cell
from .grid import Grid as Grid
from .page.frame import build_report as build_report
from .page.images import PageData as PageData
from .page.images import compute_page_data as compute_page_data
from .results import Results as Results
from .results import open_results as open_results
from .results import results_of as results_of
from .terminal import print_matrices as print_matrices
from .words import standing as standing
