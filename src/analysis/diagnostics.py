"""Tables of diagnostics: frequency bands, similarity, visibility, controls."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..utils.model_names import ModelRef
from ..utils.vocabulary import CONTROLS
from .estimates import share_columns
from .intervals import FEWEST_IMAGES, Z, paired_interval
from .outcomes import at_budget, job_outcomes, ratio, row_positions, target_labels, with_defence
from .transfer_rates import evaluated_budgets, relation

SIZES = ("rms_255", "linf_255", "psnr", "ssim")


def mean_visibility(rows: pd.DataFrame) -> pd.DataFrame:
    """Average `SIZES` over the images at each budget (PSNR: over changed images only).

    Returns:
        One row per budget: `eps_255`, the number of `images`, and the means.
    """
    finite = rows.replace({"psnr": {np.inf: np.nan}}).groupby("eps_255", as_index=False)
    return finite.agg(images=("index", "size"), **{name: (name, "mean") for name in SIZES})


def _clean_of(predictions: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the clean predictions for the images of other rows, with the columns of both."""
    shared = [name for name in predictions if name in rows]
    used = predictions["index"].isin(rows["index"])
    return predictions.loc[used & (predictions["eps_255"] == 0), shared]


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
    attack = job_outcomes(attacked, source, list(map(ModelRef.parse, targets)), protocol)
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
    columns, evaluated = evaluated_budgets(attack)
    masks = {
        "denominator": counted,
        "success": by_attack,
        "control_success": by_control,
        "attack_only": by_attack & ~by_control,
        "control_only": by_control & ~by_attack,
    }
    counts = {name: np.count_nonzero(mask, axis=1)[evaluated] for name, mask in masks.items()}
    result = pd.DataFrame(columns | {"targeted": attack.target_labels is not None} | counts)
    result = result[result["eps_255"] > 0].drop(columns="defence").reset_index(drop=True)
    b, c, n = (result[name].to_numpy() for name in ("attack_only", "control_only", "denominator"))
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


BANDS = ("all", "low", "mid", "high")
"""Frequency bands of a perturbation; `all` is the whole perturbation."""
PERTURBATIONS = ("attack", "noise")
"""Filtered perturbations: the attack's, and random-sign noise as its control."""
_BOUNDS = ["frequency_low", "frequency_high"]


def filtered_rates(
    filtered: pd.DataFrame,
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str = "joint",
) -> pd.DataFrame:
    """Compare the success of filtered perturbations with that of filtered noise.

    `filtered` is a job's table with one row per (index, target, band, kind). The job's
    `predictions` determine which images are counted, and hold the target labels. The other
    arguments are as for `rates`.

    Returns:
        One row per (target, band) with the columns of `src.analysis.diagnostics.excess`, then
        `band`, `frequency_low` and `frequency_high` (cycles per pixel).
    """
    labels = target_labels(predictions)
    if labels is not None:
        filtered = filtered.assign(target_label=labels.reindex(filtered["index"]).to_numpy())
    predictions, filtered = with_defence(predictions), with_defence(filtered)
    clean = _clean_of(predictions, filtered)
    tables = []
    for band in BANDS:
        part = filtered[filtered["band"] == band]
        attack, noise = (part[part["kind"] == kind] for kind in PERTURBATIONS)
        table = excess(pd.concat([clean, attack]), noise, source, targets, protocol)
        tables.append(table.assign(band=band, **attack[_BOUNDS].iloc[0]))
    rows = pd.concat(tables)
    places = rows["target"].map([*targets].index).to_numpy()
    return rows.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)


def low_pass_accuracy(low_passed: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Compute the accuracy on clean images without their high frequencies.

    `low_passed` has one row per (index, target, cutoff), with `label`, `predicted` and the `cutoff`
    in cycles per pixel; `clean` has the predictions for the unfiltered images.

    Returns:
        One row per cutoff and target, by increasing cutoff: `target`, `cutoff` (inf: all
        frequencies), `n`, `correct`, `accuracy` and its 95 % Wilson interval.
    """
    images = low_passed[["index", "target"]].drop_duplicates()
    unfiltered = clean.merge(images, on=["index", "target"]).assign(cutoff=np.inf)
    rows = pd.concat([low_passed.sort_values("cutoff"), unfiltered])
    rows = rows.assign(correct=rows["predicted"] == rows["label"])
    groups = rows.groupby(["target", "cutoff"], sort=False)["correct"]
    table = groups.agg(n="size", correct="sum").reset_index()
    k, n = table["correct"].to_numpy(), table["n"].to_numpy()
    return table.assign(**share_columns("accuracy", k, n))


def pair_similarity(
    predictions: pd.DataFrame,
    similarity: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    eps_255: float,
    protocol: str = "joint",
) -> pd.DataFrame:
    """Compute the success on each target and the similarity of source and target.

    `similarity` has one row per (index, target) with the `cosine` between the source's and the
    target's loss gradients on the clean image, NaN for a zero gradient. Images without a row are
    not counted. The other arguments and the errors are as for `rates`, at one budget.

    Returns:
        One row per target: `n` counted images; mean `cosine` with its 95 % t interval (NaN for
        fewer than 10 images); `kappa`, the error consistency, with its 95 % interval (Fleiss et al.
        1969); `success_rate` with its 95 % Wilson interval; and `relation`. `kappa` is Cohen's
        kappa of source and target being correct, over all clean images, and NaN if both are always
        correct or both always wrong.

    Reference:
        R. Geirhos, K. Meding and F. A. Wichmann, Beyond accuracy: quantifying trial-by-trial
        behaviour of CNNs and humans by measuring error consistency, NeurIPS (2020).
    """
    pairs = list(map(ModelRef.parse, targets))
    result = job_outcomes(at_budget(predictions, eps_255), source, pairs, protocol)
    row = row_positions(similarity.assign(eps_255=0.0), pairs, result.index, [0.0])[:, :, 0]
    counted = result.counted & result.present[:, :, -1] & (row >= 0)
    n = np.count_nonzero(counted, axis=1)
    successes = np.count_nonzero(counted & result.success[:, :, -1], axis=1)
    table = pd.DataFrame({"target": list(targets), "n": n})
    cosine = np.where(counted, similarity["cosine"].to_numpy(np.float64)[row], np.nan)
    table["cosine"], table["cosine_low"], table["cosine_high"] = mean_interval(cosine)
    clean = with_defence(predictions[predictions["eps_255"] == 0])
    clean = clean.assign(correct=clean["predicted"] == clean["label"])
    correct = clean.pivot(index="index", columns=["target", "defence"], values="correct")
    both = (correct[[result.source.columns, pair.columns]].dropna() for pair in pairs)
    table[["kappa", "kappa_low", "kappa_high"]] = [*map(_error_consistency, both)]
    relations = [relation(result.source, target) for target in pairs]
    return table.assign(**share_columns("success_rate", successes, n), relation=relations)


def mean_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Compute each row's mean without NaN, and its 95 % t interval clipped to [-1, 1]."""
    n = np.count_nonzero(~np.isnan(values), axis=1)
    mean = ratio(np.nansum(values, axis=1), n)
    squares = np.nansum((values - mean[:, None]) ** 2, axis=1)
    degrees = np.maximum(n - 1, 1)
    half = stdtrit(degrees, 0.975) * np.sqrt(squares / degrees / np.maximum(n, 1))
    half = np.where(n >= FEWEST_IMAGES, half, np.nan)
    return mean, np.maximum(mean - half, -1.0), np.minimum(mean + half, 1.0)


def _error_consistency(correct: pd.DataFrame) -> tuple[float, float, float]:
    """Compute Cohen's kappa of two models being correct, and its 95 % interval."""
    first, second = correct.to_numpy(dtype=np.float64).T
    counts = np.histogram2d(first, second, bins=2, range=[[0, 1], [0, 1]])[0]
    # Kappa is undefined if both models are always correct, or both always wrong.
    if np.diag(counts).max() == len(correct):
        return np.nan, np.nan, np.nan
    shares = counts / len(correct)
    rows, columns = shares.sum(1), shares.sum(0)
    expected = rows @ columns
    kappa = (np.trace(shares) - expected) / (1 - expected)
    squares = ((1 - kappa) * (columns[:, None] + rows)) ** 2
    np.fill_diagonal(squares, (1 - (1 - kappa) * (columns + rows)) ** 2)
    variance = (shares * squares).sum() - (kappa - expected * (1 - kappa)) ** 2
    half = Z * np.sqrt(max(variance, 0.0) / len(correct)) / (1 - expected)
    return kappa, max(kappa - half, -1.0), min(kappa + half, 1.0)
