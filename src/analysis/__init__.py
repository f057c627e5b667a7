"""Statistics: pure functions of the table of predictions, without a model, GPU or rerun."""

from .confidence import initial_confidence_effect
from .diagnostics import excess, excess_by_control
from .estimates import MEAN
from .intervals import Values, is_at_chance, paired_interval, wilson_interval
from .multiple_comparisons import LEVEL
from .outcomes import Outcomes, job_outcomes, joined, outcomes_of, ratio
from .ranking import MEAN_OF, rankings
from .trainings import network_rankings
from .trajectories import KINDS, flip_summary, trajectories
from .transfer_rates import (
    CLEAN,
    OWN,
    TRANSFER,
    WHITE_BOX,
    clean_rows,
    rates,
    relation,
    transfer_matrix,
    with_cell_columns,
)
