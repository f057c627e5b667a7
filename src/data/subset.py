"""Fixed, class-balanced subsets of a split."""

import numpy as np


def balanced_subset(labels: np.ndarray, n_images: int | None, seed: int = 0) -> np.ndarray:
    """Return `n_images` positions, ascending int64, that represent every class present evenly.

    Each class present gets floor or ceil of `n_images / classes present`; a class with too few
    images gives all it has and the others fill up evenly. For one seed the choices are nested:
    the 100 images chosen for `n_images=100` are among the 200 chosen for `n_images=200`.

    `labels`, int64 (N,), are the classes of all images of the split; `n_images` is in 1..N, or None
    for all. The choice is a function of `labels` and the seed, 0..2**32 - 1, alone.
    """
    total = len(labels)
    if n_images is None:
        return np.arange(total)
    if not 1 <= n_images <= total:
        raise ValueError(
            f"n_images={n_images} is not between 1 and {total}, the number of images there are"
        )
    # RandomState, because NumPy guarantees that its stream never changes between versions.
    random = np.random.RandomState(seed)
    shuffled = random.permutation(total)
    classes, compact = np.unique(labels, return_inverse=True)
    turn_of_class = random.permutation(len(classes))
    # Deal the images like cards: round 0 takes one image of every class, round 1 a second one of
    # every class that still has one, and so on. The first n of that order are balanced and nested.
    dealt_round = np.empty(total, dtype=np.int64)
    by_class = shuffled[np.argsort(compact[shuffled], kind="stable")]
    sizes = np.bincount(compact)
    dealt_round[by_class] = np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    order = np.lexsort((turn_of_class[compact], dealt_round))
    return np.sort(order[:n_images])
