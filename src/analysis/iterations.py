"""Success over the iterations of one run of an attack."""

from collections.abc import Sequence

import pandas as pd

from src.analysis.outcomes import with_defence
from src.analysis.transfer_rates import rates


def success_over_iterations(
    iterations: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str,
) -> pd.DataFrame:
    """Return each target's rates by iterate, the clean image being iterate 0.

    `iterations` is that table of a job, and of its `predictions` the clean rows are taken; the
    other arguments are those of `rates`.

    Returns:
        The rows of `rates`, with `iteration` in the budget's place, and with `eps_255`, the one
        budget of all iterates, and `step_255`, the length of a step.
    """
    predictions, moved = with_defence(predictions), with_defence(iterations)
    shared = [name for name in predictions if name in moved]
    clean = predictions.loc[predictions["eps_255"] == 0, shared]
    moved = moved.assign(eps_255=iterations["iteration"].astype(float))
    found = rates(pd.concat([clean, moved], ignore_index=True), source, targets, protocol)
    found = found.rename(columns={"eps_255": "iteration"}).astype({"iteration": int})
    first = iterations.iloc[0]
    return found.assign(eps_255=first["eps_255"], step_255=first["step_255"])
