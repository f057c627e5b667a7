"""The Python interface, for editors and for imports on first use."""

from . import attacks as attacks
from .api.classifier import load_classifier as load_classifier
from .api.comparison import compare as compare
from .api.frames import images_needed as images_needed
from .api.frames import load_sweep as load_sweep
from .api.frames import load_table as load_table
from .api.frames import rankings as rankings
from .api.frames import rates as rates
from .api.rank import paper as paper
from .api.rank import rank as rank
from .api.transfer import transfer as transfer
from .report.audit import tries as tries
from .report.figure import confidence_groups as confidence_groups
from .report.figure import cost as cost
from .report.figure import curves as curves
from .report.figure import image as image
from .report.figure import matrix as matrix
from .report.figure import profiles as profiles
from .report.figure import ranking as ranking
from .report.figure import strip as strip
from .report.named_tables import table as table
