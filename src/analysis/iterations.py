"""Success over the iterations of a single attack run."""

from collections.abc import Sequence

import pandas as pd

from .outcomes import with_defence
from .transfer_rates import rates


def success_over_iterations(
    iterations: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str,
) -> pd.DataFrame:
    """Compute the `rates` of each target by iterate; iterate 0 is the clean image.

    The column `iteration` replaces the budget. `eps_255` is the budget of the run, `step_255` the
    step size.
    """
    predictions, moved = with_defence(predictions), with_defence(iterations)
    shared = [name for name in predictions if name in moved]
    clean = predictions.loc[predictions["eps_255"] == 0, shared]
    moved = moved.assign(eps_255=iterations["iteration"].astype(float))
    rows = rates(pd.concat([clean, moved], ignore_index=True), source, targets, protocol)
    rows = rows.rename(columns={"eps_255": "iteration"}).astype({"iteration": int})
    return rows.assign(**iterations.iloc[0][["eps_255", "step_255"]])
