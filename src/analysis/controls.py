"""Excess transfer: the success of an attack beyond that of a control at the same budget."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..config.sections import CONTROLS
from ..utils.model_names import ModelRef
from .intervals import paired_interval
from .outcomes import outcomes, ratio, row_positions
from .transfer_rates import evaluated_budgets


def excess(
    attacked: pd.DataFrame,
    control: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Compare the success of an attack with that of a control on the same images.

    The clean rows of `attacked` determine the denominator. `control` needs a row for every attacked
    row of the targets. The control of a targeted attack succeeds if it reaches the image's
    `target_label`. The other arguments and the errors are as for `rates`.

    Returns:
        One row per (target, eps_255 > 0): `targeted`, `denominator`, `success`,
        `control_success`, `attack_only` and `control_only` (images on which only the attack or only
        the control succeeds), both rates, and their difference `excess` with its 95 % interval (see
        `paired_interval`). The rates are NaN if the denominator is 0.
    """
    attack = outcomes(attacked, source, list(map(ModelRef.parse, targets)), protocol)
    row = row_positions(control, attack.targets, attack.index, attack.eps_255)
    counted = attack.present & (attack.eps_255 > 0) & attack.counted[:, :, None]
    if (counted & (row < 0)).any():
        target, image, budget = np.argwhere(counted & (row < 0))[0]
        raise ValueError(
            f"the control has no row for target '{attack.targets[target]}' and image "
            f"{attack.index[image]} at eps_255 = {attack.eps_255[budget]:g}."
        )
    by_attack = counted & attack.success
    by_control = counted & attack.is_success(control["predicted"].to_numpy()[row])
    result, evaluated = evaluated_budgets(attack)
    result["targeted"] = attack.target_labels is not None
    for name, mask in (
        ("denominator", counted),
        ("success", by_attack),
        ("control_success", by_control),
        ("attack_only", by_attack & ~by_control),
        ("control_only", by_control & ~by_attack),
    ):
        result[name] = np.count_nonzero(mask, axis=1)[evaluated]
    result = result[result["eps_255"] > 0].drop(columns="defence").reset_index(drop=True)
    n = result["denominator"].to_numpy()
    b, c = result["attack_only"].to_numpy(), result["control_only"].to_numpy()
    result["success_rate"] = ratio(result["success"].to_numpy(), n)
    result["control_success_rate"] = ratio(result["control_success"].to_numpy(), n)
    result["excess"] = ratio(b - c, n)
    result["excess_low"], result["excess_high"] = paired_interval(b, c, n)
    return result


def excess_by_control(
    variants: Mapping[str, pd.DataFrame],
    primary: str,
    source: str,
    targets: Sequence[str],
    protocol: str,
) -> pd.DataFrame:
    """Compute the `excess` of the primary variant over each control, named by `control`."""
    tables = {
        name: excess(variants[primary], variants[name], source, targets, protocol)
        for name in CONTROLS
        if name in variants
    }
    if not tables:
        return pd.DataFrame()
    return pd.concat(tables, names=["control"]).reset_index("control").reset_index(drop=True)
