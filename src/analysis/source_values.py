"""Values of sources that do not attack the same targets."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ..utils.model_names import ModelRef
from .outcomes import Mask, Values, network_of

COMMON_TARGETS = 2
"""Sources are ranked if each two have as many targets in common, besides themselves."""


def source_values(measured: Mask) -> Values:
    """Return the matrix from the rates of S sources on T targets to the sources' values.

    A value is the mean over all targets of the least-squares fit rate = source + target.

    Args:
        measured: The pairs that have a rate, shape (S, T).

    Returns:
        The matrix, shape (S, pairs), for rates in the order of `rates[there]`; NaN for sources that
        the targets do not connect with the others.
    """
    source, target = np.nonzero(measured)
    design = np.zeros((len(source), sum(measured.shape)))
    rows = np.arange(len(source))
    design[rows, source] = design[rows, len(measured) + target] = 1
    wanted = np.full((len(measured), design.shape[1]), 1 / max(measured.shape[1], 1))
    wanted[:, : len(measured)] = np.eye(len(measured))
    matrix: Values = wanted @ np.linalg.pinv(design)
    matrix[~np.isclose(matrix @ design, wanted).all(axis=1)] = np.nan
    return matrix


def missing_target(
    measured: Mask, sources: Sequence[str], targets: Sequence[str], networks: Mapping[str, str]
) -> str:
    """Return what to add so that each two sources have enough common targets; empty if nothing.

    Args:
        measured: The pairs of source and target that can be compared, shape (S, T).
        sources: Names of the sources.
        targets: Names of the targets.
        networks: The network of each model; a model that it lacks is its own.
    """
    of = {
        name: {network_of(member, networks) for member in ModelRef.parse(name).members}
        for name in (*sources, *targets)
    }
    for first, second in combinations(range(len(sources)), 2):
        if (more := COMMON_TARGETS - int((measured[first] & measured[second]).sum())) > 0:
            both = sources[first], sources[second]
            other = measured[first] ^ measured[second]
            names = [name for name, is_missing in zip(targets, other, strict=True) if is_missing]
            if others := [name for name in names if not of[name] & (of[both[0]] | of[both[1]])]:
                return f"{others[0]} as a target of both {both[0]} and {both[1]}"
            return f"{more} more target{'s' * (more > 1)} besides {', '.join(sources)}"
    return ""
