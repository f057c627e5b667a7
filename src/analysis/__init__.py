"""Statistics: pure functions of the table of predictions, without a model, GPU or rerun."""

from .diagnostics import excess, excess_by_control
from .image_outcomes import ImageOutcomes, joined
from .intervals import Values, is_at_chance, paired_interval, wilson_interval
from .multiple_comparisons import LEVEL
from .outcomes import outcomes, ratio
from .ranking import MEAN_OF, rankings
from .trajectories import KINDS, flip_summary, trajectories
from .transfer_rates import (
    CLEAN,
    OWN,
    TRANSFER,
    WHITE_BOX,
    clean_rows,
    rates,
    rates_by_protocol,
    relation,
    transfer_matrix,
    with_cell_columns,
)
