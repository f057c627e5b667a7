"""Excess transfer: what an attack achieves beyond a control of the same budget."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from src.analysis.intervals import paired_interval
from src.analysis.matrices import gather
from src.analysis.outcomes import outcomes, row_positions
from src.analysis.transfer_rates import evaluated_budgets, ratio

CONTROL_NAMES = {"noise": "random-sign noise", "shuffled": "shuffled perturbations"}
"""Controls by the name of their table, `predictions-NAME`, in the order of their evaluation.

`src.evaluation.CONTROLS` holds the same names; this package does not import it, nor torch.
"""


def excess(
    attacked: pd.DataFrame,
    control: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Subtract a control's successes from an attack's, on the same images.

    For a targeted attack a control succeeds where it happens to reach the image's own
    `target_label`.

    Args:
        attacked: Predictions of the attack, clean rows included; they decide the denominator.
        control: Predictions of a control, with a row for every attacked row of the targets.
        source: Model that the adversarial images were crafted on.
        targets: Models that the images were evaluated on, in the order of the result.
        protocol: Which images form the denominator, as in `rates`.

    Returns:
        One row per (target, eps_255 > 0) with `targeted`, `denominator`, the counts `success`
        and `control_success`, `attack_only` and `control_only` (images on which one of the two
        succeeds), `success_rate`, `control_success_rate`, their difference `excess` in [-1, 1]
        and its 95 % interval for paired proportions `excess_low` and `excess_high` (Tango
        1998; see `paired_interval`). With an empty denominator the rates are NaN.

    Raises:
        ValueError: As `rates`.
    """
    found = outcomes(attacked, source, targets, protocol)
    row = row_positions(control, targets, found.index, found.eps_255)
    attack_rows = found.present & (found.eps_255 > 0)
    counted = attack_rows & found.counted[:, :, None]
    by_attack = counted & found.success
    by_control = counted & found.is_success(control["predicted"].to_numpy()[row])
    result, evaluated = evaluated_budgets(found)
    result["targeted"] = found.target_labels is not None
    for name, mask in (
        ("denominator", counted),
        ("success", by_attack),
        ("control_success", by_control),
        ("attack_only", by_attack & ~by_control),
        ("control_only", by_control & ~by_attack),
    ):
        result[name] = np.count_nonzero(mask, axis=1)[evaluated]
    result = result[result["eps_255"] > 0].reset_index(drop=True)
    n = result["denominator"].to_numpy()
    b, c = result["attack_only"].to_numpy(), result["control_only"].to_numpy()
    result["success_rate"] = ratio(result["success"].to_numpy(), n)
    result["control_success_rate"] = ratio(result["control_success"].to_numpy(), n)
    result["excess"] = ratio(b - c, n)
    result["excess_low"], result["excess_high"] = paired_interval(b, c, n)
    return result


def excess_matrix(excess_by_source: Mapping[str, pd.DataFrame], eps_255: float) -> pd.DataFrame:
    """Gather one budget of several sources' excess into a matrix in long form.

    Args:
        excess_by_source: Result of `excess` for each source, in the order of the rows.
        eps_255: Budget, one of those in every table.

    Returns:
        One row per cell: `source`, `target`, `eps_255`, `targeted`,
        `success` and `control` (counts), `denominator`, `excess`, `excess_low`, `excess_high`
        and `cell` (see `format_excess`).

    Raises:
        ValueError: If a table lacks the budget, or targeted and untargeted attacks meet.
    """
    cells = gather(excess_by_source, eps_255).rename(columns={"control_success": "control"})
    counts = ["success", "control", "denominator"]
    shares = ["excess", "excess_low", "excess_high"]
    values = cells[counts + shares].itertuples(index=False, name=None)
    cells["cell"] = [format_excess(*row) for row in values]
    return cells[["source", "target", "eps_255", "targeted", *counts, *shares, "cell"]]


def format_excess(
    success: int, control: int, denominator: int, excess: float, low: float, high: float
) -> str:
    """Write a difference of rates with its counts and interval.

    >>> format_excess(6713, 214, 8139, 6499 / 8139, 0.7895, 0.8070)
    '(6713 - 214) / 8139 = 79.85% [78.95%, 80.70%]'
    >>> format_excess(0, 0, 0, float("nan"), float("nan"), float("nan"))
    '(0 - 0) / 0 = n/a'
    """
    rate = f"{excess:.2%} [{low:.2%}, {high:.2%}]" if denominator else "n/a"
    return f"({success} - {control}) / {denominator} = {rate}"
