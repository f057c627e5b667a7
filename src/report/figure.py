"""The report's main charts for sweeps or data frames, at a printed size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from altair.typing import ChartType

from ..artifacts.sweep_folders import Sweeps
from . import printed, printed_pairs
from .results import Results, open_results
from .shown import Shown, shown_of

KINDS = ("matrix", "curves", "ranking", "cost", "confidence_groups", "image", "strip", "profiles")
"""Names of the charts."""
Names = str | Sequence[str] | None
_AXES = ("attack", "source", "target")


def matrix(
    folder: Sweeps | Results,
    *more: Sweeps,
    attack: str | None = None,
    source: Names = None,
    target: Names = None,
    eps_255: float | None = None,
    protocol: str | None = None,
    value: str = "success",
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw a sweep's transfer matrix, sources x targets, in percent, white boxes in grey.

    Args:
        folder: What `load_sweep` or `transfer` returned, or folders as for `table`.
        *more: Further folders.
        attack: Label of the attack; None: the first in the ranking.
        source: Sources to draw; None: all.
        target: Targets to draw; None: all.
        eps_255: Budget in units of 1/255; None: the reference budget.
        protocol: Protocol; None: the job's protocol.
        value: What the cells show: `success`, `accuracy`, `confidence` or `true_confidence`.
        width: Printed width, such as `3.3in`, `84mm` or `240pt`; the text is set in 7 pt.
        height: Printed height.
        names: Printed names of attacks and models, by their own names.

    Returns:
        An Altair chart: a notebook displays it, and `chart.save("matrix.pdf")` writes it.

    Raises:
        ValueError: As `load_sweep`; no job has this attack, budget, protocol or model; or the names
            do not fit.
    """
    chosen: dict[str, Any] = {"attack": attack, "eps": eps_255, "protocol": protocol}
    chosen |= {"source": source, "target": target, "value": value}
    return printed.cells(_figure(_results((folder, *more)), chosen, width, height, names))


def curves(
    folder: Sweeps | Results,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    target: Names = None,
    value: str = "success",
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw a value over the budget, one line per named attack, source and target.

    The `value` is `success`, `accuracy`, `confidence` or `true_confidence`. If no attack is named,
    every attack has a line. If no source is named, the lines show the mean over sources; if no
    target is named, the mean on other models. Up to three lines have 95 % bands. The other
    arguments, the result and the errors are as for `matrix`.
    """
    chosen = {"attack": attack, "source": source, "target": target, "value": value}
    return printed.over_budgets(_figure(_results((folder, *more)), chosen, width, height, names))


def ranking(
    folder: Sweeps | Results,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    eps_255: float | None = None,
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw the mean success on other models, one row per attack by rank.

    Lines are the simultaneous 95 % intervals of the difference from the first, as in `rankings`,
    drawn from its mean, which is a vertical line. They do not reach it exactly where an attack is
    significantly weaker; the others share the colour of the first. If no source is named, success
    is the mean over the sources. Arguments, result and errors are as for `matrix`.
    """
    chosen = {"attack": attack, "source": source, "eps": eps_255}
    return printed.in_order(_figure(_results((folder, *more)), chosen, width, height, names))


def cost(
    folder: Sweeps | Results,
    *more: Sweeps,
    attack: Names = None,
    source: Names = None,
    eps_255: float | None = None,
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
) -> ChartType:
    """Draw the mean success of `ranking` over the gradients per image, summed over all budgets.

    Arguments, result and errors are as for `ranking`.
    """
    chosen = {"attack": attack, "source": source, "eps": eps_255}
    return printed.over_cost(_figure(_results((folder, *more)), chosen, width, height, names))


def confidence_groups(
    folder: Sweeps | Results,
    *more: Sweeps,
    groups: int = 3,
    bins: float | None = None,
    **options: Any,
) -> ChartType:
    """Draw accuracy and confidence of one pair over the budget, by initial confidence.

    The images are those that the job's protocol counts and the target classifies correctly when
    clean. They are in equal `groups`, or in groups of `bins` points of confidence; groups of fewer
    than three images are not drawn.

    The other keywords, the result and the errors are as for `ranking`, and `target`. Without names
    the attack is the first in the ranking, and the pair is the one that it fools most often.
    """
    return printed_pairs.groups(_pair((folder, *more), _AXES, **options), groups, bins)


def image(number: int | str, folder: Sweeps | Results, *more: Sweeps, **options: Any) -> ChartType:
    """Draw an image's confidence over the budget, a line per attack, and its likeliest classes.

    The image is its number, or its file such as `cat/17.jpg`, as in `images.csv`.
    A cross marks a wrong class. The likeliest classes are those of the clean image, and at the
    smallest budget at which the first attack makes the class wrong, or else at the budget with the
    lowest confidence. Keywords, result and errors are as for `confidence_groups`.
    """
    pair = _pair((folder, *more), **options)
    return printed_pairs.image(pair, pair.number(number))


def strip(
    number: int | str,
    folder: Sweeps | Results,
    *more: Sweeps,
    budgets: Sequence[float] = (),
    width: str | None = None,
    **options: Any,
) -> ChartType:
    """Draw an image as a row of pictures: clean, perturbation and `budgets`, with classes below.

    The image is its number, or its file such as `cat/17.jpg`, as in `images.csv`.
    The perturbation is that of the last budget. Without `budgets` all that are stored are drawn.
    Without `width` the strip is as wide as its texts need, at least 3.3 in. Keywords, result and
    errors are as for `confidence_groups`; the height follows from the width.
    """
    options |= {} if width is None else {"width": width}
    pair = _pair((folder, *more), _AXES, **options)
    return printed_pairs.strip(pair, pair.number(number), budgets, fit=width is None)


def profiles(folder: Sweeps | Results, *more: Sweeps, **options: Any) -> ChartType:
    """Draw a target's five highest probabilities on clean images, by initial confidence.

    Keywords, result and errors are as for `confidence_groups`.
    """
    return printed_pairs.profiles(_pair((folder, *more), **options))


def _pair(
    folders: Sequence[Sweeps | Results],
    single: Sequence[str] = ("source", "target"),
    width: str = "3.3in",
    height: str = "2in",
    names: Mapping[str, str] | None = None,
    **chosen: Names,
) -> printed_pairs.Pair:
    """Return the first pair of `Shown.pairs` with the chosen names, and its jobs by rank.

    Axes in `single` have one name.
    """
    results = _results(folders)
    figure = _figure(results, chosen, width, height, names)
    pairs = figure.shown.pairs
    for place, key in enumerate(_AXES):
        pairs = [pair for pair in pairs if pair[place] in (getattr(figure, key) or pair)]
    if not pairs:
        raise ValueError("No job has this attack with this source and target.")
    for key in single:
        if len(getattr(figure, key)) > 1:
            raise ValueError(f"This figure shows one {key}: choose one with {key}.")
    source, target = pairs[0][1:]
    ranked = dict.fromkeys(attack for attack, *pair in pairs if pair == [source, target])
    first = [row[0].job for row in results.attacked]
    jobs = {(job.attack, job.record.source): job for job in first}
    attacks = [*ranked][: 1 if "attack" in single else None]
    return printed_pairs.Pair(figure, [jobs[attack, source] for attack in attacks], target)


def _results(folders: Sequence[Sweeps | Results]) -> Results:
    """Return the results of jobs, some with adversarial images."""
    results = open_results(*folders)
    if not results.attacked:
        raise ValueError("These jobs have only clean images; a chart needs jobs with an attack.")
    return results


def _figure(
    results: Results,
    chosen: Mapping[str, Any],
    width: str,
    height: str,
    names: Mapping[str, str] | None,
) -> printed.Figure:
    """Return the rows, the chosen names and the size of a printed chart."""
    shown = shown_of(results)
    listed: dict[str, Any] = {
        key: [value] if isinstance(value, str | float | int) else list(value)
        for key, value in chosen.items()
        if value not in (None, "", [], ())
    }
    _check(shown, listed)
    first = {key: listed.pop(key)[0] for key in ("eps", "protocol") if key in listed}
    shown = replace(shown, choice=replace(shown.choice, **first))
    size = (printed.to_points(width=width), printed.to_points(height=height))
    value = listed.pop("value", ["success"])[0]
    return printed.Figure(shown, *size, names or {}, **listed, value=value)


def _check(shown: Shown, chosen: Mapping[str, Sequence[Any]]) -> None:
    """Raise a `ValueError` if no job has a chosen value."""
    known = {**shown.options, "value": list(printed.VALUES)}
    for key, values in chosen.items():
        if unknown := [value for value in values if value not in known[key]]:
            options = ", ".join(map(str, known[key]))
            key = {"eps": "eps_255"}.get(key, key)
            raise ValueError(f"{key}={unknown[0]}: choose from {options}.")
