"""Statistics: pure functions of the table of predictions, without a model, GPU or rerun."""

from .diagnostics import excess, excess_by_control
from .intervals import wilson_interval
from .sanity_checks import (
    CAUSES,
    alarms,
    clean_at_chance,
    copies_of_images,
    explained,
    is_at_chance,
    labels_permuted,
    many_abstentions,
    over_budget,
)
from .trajectories import flip_summary, trajectories
from .transfer_rates import (
    CLEAN,
    OWN,
    TRANSFER,
    WHITE_BOX,
    clean_rows,
    format_cell,
    rates,
    rates_by_protocol,
    relation,
    transfer_matrix,
    with_cell_columns,
)
