"""Print how often equal networks are called different, for new trainings and new images.

    python docs/simulate_trainings.py [WORLDS]

An image is fooled if a normal variable of variance 1 is below a threshold. Its parts are the image
(half of the variance), network and image (15 %, the same for all trainings), and the rest. A
training moves the threshold, so that success differs by `spread` points between trainings. The last
column has three networks that attack each other: one error is any of the three pairs.
"""

import sys
import warnings

import numpy as np
from scipy.stats import norm, ttest_ind

from src.analysis.trainings import compare_networks

SHARE = 0.3  # of the images are fooled
IMAGE, NETWORK = 0.5, 0.15
LEVEL = 0.05


def world(random, networks, targets, trainings, images, spread):
    """Return which images are fooled, shape (networks * trainings, targets, images)."""
    shape = networks, trainings, targets, images
    parts = [(IMAGE, (1, 1, *shape[2:])), (NETWORK, (networks, 1, *shape[2:]))]
    parts.append((1 - IMAGE - NETWORK, shape))
    value = sum(np.sqrt(part) * random.standard_normal(its) for part, its in parts)
    threshold = norm.ppf(SHARE)
    moved = spread / 100 / norm.pdf(threshold) * random.standard_normal((networks, trainings, 1, 1))
    return (value < threshold + moved).reshape(-1, targets, images).astype(float)


def is_error(fooled, sources, targets):
    """Return whether any two networks are called different; names are network and number."""
    networks = {name: name[0] for name in (*sources, *targets)}
    there = np.array([[a[0] != b[0] for b in targets] for a in sources])
    counted = np.ones(fooled.shape[1:], bool)
    p = compare_networks(fooled, counted, there, (sources, targets), networks)["p"]
    return bool((p < LEVEL).any())


def one_target(random, trainings, images, spread):
    """Return the errors of the interval, of images alone and of trainings alone."""
    fooled = world(random, 2, 1, trainings, images, spread)
    sources = [f"{network}{number}" for network in "ab" for number in range(trainings)]
    means = fooled[:, 0].reshape(2, trainings, images)
    differences = means[0].mean(axis=0) - means[1].mean(axis=0)
    ratio = abs(differences.mean()) / max(differences.std(ddof=1) / np.sqrt(images), 1e-12)
    by_training = ttest_ind(*means.mean(axis=2), equal_var=False).pvalue
    both = is_error(fooled, sources, ["t"]) if trainings > 2 else np.nan
    return both, ratio > norm.ppf(1 - LEVEL / 2), by_training < LEVEL


def each_other(random, trainings, images, spread):
    """Return the error of three networks that attack each other."""
    names = [f"{network}{number}" for network in "abc" for number in range(trainings)]
    return is_error(world(random, 3, len(names), trainings, images, spread), names, names)


if __name__ == "__main__":
    worlds, generator = int([*sys.argv, "2000"][1]), np.random.default_rng(0)
    warnings.simplefilter("ignore")  # few trainings of few images may agree exactly
    heads = ("spread", "images", "trainings", "this interval", "images alone", "trainings alone")
    print(f"| {' | '.join([*heads, 'three networks'])} |\n|{'---|' * 7}")
    for spread in (0, 2, 5):
        for images in (200, 1000):
            for trainings in (2, 3, 4, 6, 10):
                place = generator, trainings, images, spread
                errors = np.mean([one_target(*place) for _ in range(worlds)], axis=0)
                few = worlds // 4 * (trainings in (3, 4))
                three = [each_other(*place) for _ in range(few)]
                shown = [*errors, np.mean(three) if three else np.nan]
                texts = ["" if np.isnan(its) else f"{its:.1%}".replace("%", " %") for its in shown]
                print(f"| {spread} | {images} | {trainings} | {' | '.join(texts)} |", flush=True)
