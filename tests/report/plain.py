"""Every number of a frame of results, computed anew by plain loops over its predictions.

Nothing here is shared with `src`: names of models are split, images are counted, means and
intervals are computed by loops, from the definitions alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import nan, sqrt
from typing import Any, NamedTuple

import pandas as pd

MEAN = "mean"
PROTOCOLS = ("all", "source_correct", "target_correct", "joint", "common")
QUANTITIES = ("success_rate", "robust_accuracy", "confidence", "true_confidence")
Z = 1.9599639845400545  # the 97.5 % quantile of the normal distribution


class Place(NamedTuple):
    """What a row of the results is about; source, target and seed may be a mean."""

    attack: str
    source: str
    target: str
    defence: str
    protocol: str
    eps_255: float
    seed: Any


Images = dict[int, tuple[float, ...]]
"""By the number of a counted image with a prediction: fooled, correct, two confidences, draws."""
Pair = tuple[str, str, str]
"""Source, target, and the target's defence."""
Weighted = Sequence[tuple[Images, float]]
Cells = list[list[list[Images]]]
"""What a mean is over: for each target its pairs, for each pair its seeds."""


def every_number(predictions: pd.DataFrame, reference: float) -> dict[Place, dict[str, float]]:
    """Return the numbers of all pairs and means, by their place.

    The predictions have a row per attack, source, seed, target, defence, budget and image.
    """
    by_job = predictions.groupby(["attack", "source", "seed"], sort=False)
    jobs: dict[Any, Any] = {job: rows.to_dict("records") for job, rows in by_job}
    results: dict[Place, dict[str, float]] = {}
    for attack, protocol in product({attack for attack, _, _ in jobs}, PROTOCOLS):
        counted, of_pairs = dict[tuple[str, Any], dict[Any, Images]](), dict[Any, Any]()
        for (name, source, seed), rows in jobs.items():
            if name == attack:
                pairs_of_job = [*_counted(source, rows, protocol)]
                counted[source, seed] = {place: images for place, images, _ in pairs_of_job}
                of_pairs |= {(source, seed, *place): its for place, _, its in pairs_of_job}
        seeds = {seed for _, seed in counted}
        for seed in [*seeds, *[MEAN] * (len(seeds) > 1)]:
            pairs = defaultdict[tuple[Pair, float], list[Images]](list)
            for (source, its_seed), job in counted.items():
                for (target, defence, eps), images in job.items():
                    if seed in (its_seed, MEAN):
                        pairs[(source, target, defence), eps].append(images)
            for source, target, defence, eps, cells in _means(pairs, reference):
                place = Place(attack, source, target, defence, protocol, eps, seed)
                more = of_pairs.get((source, seed, target, defence, eps), {})
                numbers = _numbers(cells) | more
                if numbers["images"] or MEAN not in (source, target, seed):
                    results[place] = numbers
    whole = {place._replace(seed=MEAN): its["pairs"] for place, its in results.items()}
    whole |= {place: its["pairs"] for place, its in results.items() if place.seed == MEAN}
    return {
        place: its
        for place, its in results.items()
        if MEAN not in (place.source, place.target)
        or its["pairs"] == whole[place._replace(seed=MEAN)]
    }


def _counted(
    source: str, rows: Sequence[Mapping[str, Any]], protocol: str
) -> Iterator[tuple[tuple[str, str, float], Images, dict[str, float]]]:
    """Yield the images of each target, defence and budget that a protocol counts.

    And the numbers that only pairs have.
    """
    predicted: dict[tuple[str, str, float, int], Mapping[str, Any]] = {}
    aims: dict[int, Any] = {}
    for row in rows:
        predicted[row["target"], row["defence"], row["eps_255"], row["index"]] = row
        if row["eps_255"] > 0:
            aims[row["index"]] = row["target_label"]
    targeted = any(not pd.isna(aim) for aim in aims.values())
    evaluated = {place[:2] for place in predicted if place[2] > 0}
    images = sorted({place[3] for place in predicted})
    own_model, _, own_defence = source.partition("@")

    def correct(model: str, defence: str, image: int) -> bool | None:
        row = predicted.get((model, defence, 0.0, image))
        return None if row is None else row["predicted"] == row["label"]

    of_source = {image: correct(own_model, own_defence or "none", image) for image in images}

    def fools(row: Mapping[str, Any] | None) -> bool:
        if row is None or row["predicted"] == -1:
            return False
        aim = aims[row["index"]]
        return bool(row["predicted"] == aim if targeted else row["predicted"] != row["label"])

    needs_source = protocol in ("source_correct", "joint", "common")
    if needs_source and None in of_source.values():
        return  # its clean images were not evaluated
    if protocol == "common" and all(defence == "none" for _, defence in evaluated):
        return
    for target, defence in evaluated:
        defences = [its for name, its in evaluated if name == target]
        clean = [predicted[target, defence, 0.0, image] for image in images]
        seen = [row["predicted"] == row["label"] for row in clean if row["predicted"] != -1]
        labels = {row["index"]: row["label"] for row in clean}
        aimed = [its for its in images if not targeted or aims[its] != labels[its]]
        chosen = []
        for image in aimed:
            if needs_source and not of_source[image]:
                continue
            if protocol in ("target_correct", "joint") and not correct(target, defence, image):
                continue
            if protocol == "common" and not all(correct(target, its, image) for its in defences):
                continue
            chosen.append(image)
        for eps in {place[2] for place in predicted if place[:2] == (target, defence)}:
            attacked = {image: predicted[target, defence, eps, image] for image in aimed}
            known = {image: row for image, row in attacked.items() if row["predicted"] != -1}
            numbers: Images = {}
            for image in (image for image in chosen if image in known):
                row = known[image]
                right = row["predicted"] == row["label"]
                draws = right if pd.isna(row["draws_correct"]) else row["draws_correct"] / 5
                confidences = row["confidence"], row["true_confidence"]
                numbers[image] = (fools(row), right, *confidences, draws)
            more = {"abstained": len({*chosen} - known.keys())}
            more |= {"clean_accuracy": sum(seen) / len(seen)}
            fooled = [its[2] for its in numbers.values() if its[0]]
            more |= {"success_confidence": sum(fooled) / len(fooled) if fooled else nan}
            draws = [its[4] for its in numbers.values()]
            more |= {"draws_correct": sum(draws) / len(draws) if draws else nan}
            on_source = [
                fools(row)
                for image, row in known.items()
                if _is_other(source, target)
                and of_source[image]
                and correct(target, defence, image)
                and fools(predicted.get((own_model, own_defence or "none", eps, image)))
            ]
            more |= {"conditional_images": len(on_source), "conditional_success": sum(on_source)}
            yield (target, defence, eps), numbers, more


def _means(
    pairs: Mapping[tuple[Pair, float], list[Images]], reference: float
) -> Iterator[tuple[str, str, str, float, Cells]]:
    """Yield source, target, defence and budget of every pair and mean, and what it is over."""
    for ((source, target, defence), eps), seeds in pairs.items():
        yield source, target, defence, eps, [[seeds]]
    transfer = {place: its for place, its in pairs.items() if _is_other(*place[0][:2])}
    of_source = defaultdict[tuple[str, str, float], Cells](list)
    for ((source, _, defence), eps), seeds in sorted(transfer.items()):
        of_source[source, defence, eps].append([seeds])
    for (source, defence, eps), cells in of_source.items():
        yield source, MEAN, defence, eps, cells
    single = {place: its for place, its in transfer.items() if not {"+", "@"} & {*place[0][0]}}
    sources, budgets = _shared(single, reference)
    of_target = defaultdict[tuple[str, float], dict[str, list[list[Images]]]](dict)
    for ((source, target, defence), eps), seeds in sorted(single.items()):
        if source in sources and eps in budgets:
            of_target[defence, eps].setdefault(target, []).append(seeds)
    for (defence, eps), targets in of_target.items():
        for target, its in targets.items():
            yield MEAN, target, defence, eps, [its]
        yield MEAN, MEAN, defence, eps, [*targets.values()]


def _is_other(source: str, target: str) -> bool:
    """Return True if the target is another network than the source and its members."""
    return target not in source.partition("@")[0].split("+")


def _shared(places: Iterable[tuple[Pair, float]], reference: float) -> tuple[set[str], set[float]]:
    """Return the sources of an attack's means, and the budgets that all of them have."""
    sources = defaultdict[float, set[str]](set)
    for (source, _, _), eps in places:
        sources[eps].add(source)
    tried = sorted(eps for eps in sources if eps > 0)
    if not tried:
        return set(), set()
    most = max(tried, key=lambda eps: len(sources[eps]))  # of several the lowest
    chosen = sources[reference if reference in tried else most]
    return chosen, {0.0, *(eps for eps in tried if chosen <= sources[eps])}


def _numbers(cells: Cells) -> dict[str, float]:
    """Return values, intervals and counts of a pair or a mean."""
    pairs = [seeds for target in cells for seeds in target if any(seeds)]
    weighted = _weighted(cells)
    every = {image for images, _ in weighted for image in images}
    numbers: dict[str, float] = {"images": len(every), "pairs": max(len(pairs), 1)}
    if len(cells) == len(cells[0]) == 1:
        seeds = [images for images in cells[0][0] if images] or [{}]
        numbers["denominator"] = sum(map(len, seeds)) / len(seeds)
        for at, name in enumerate(("success", "still_correct")):
            numbers[name] = sum(its[at] for images in seeds for its in images.values()) / len(seeds)
    for at, name in enumerate(QUANTITIES):
        numbers[name] = mean = sum(weight * _share(images, at) for images, weight in weighted)
        if not pairs:
            numbers[name] = low = high = nan
        elif len(pairs) > 1 and len(every) < 10:
            low = high = nan
        elif name in ("confidence", "true_confidence"):
            low, high = wilson(mean * len(every), len(every))
        else:
            low, high = _of_contributions(weighted, at, len(every))
        numbers |= {f"{name}_low": low, f"{name}_high": high}
    return numbers


def _share(images: Images, at: int) -> float:
    return sum(its[at] for its in images.values()) / len(images)


def _weighted(cells: Cells) -> Weighted:
    """Return the images of each seed of each pair with its weight; what is empty has none."""
    weighted = []
    targets = [[seeds for seeds in target if any(seeds)] for target in cells]
    targets = [target for target in targets if target]
    for target in targets:
        for seeds in target:
            counting = [images for images in seeds if images]
            for images in counting:
                weighted.append((images, 1 / len(counting) / len(target) / len(targets)))
    return weighted


def _of_contributions(weighted: Weighted, at: int, images: int) -> tuple[float, float]:
    """Return Wilson's interval at the effective number of images."""
    values, weights = defaultdict[int, float](float), defaultdict[int, float](float)
    for its_images, weight in weighted:
        for image, its in its_images.items():
            values[image] += its[at] * weight / len(its_images) * images
            weights[image] += weight / len(its_images) * images
    mean = sum(values.values()) / images
    squares = sum((values[image] - mean * weights[image]) ** 2 for image in weights)
    largest, few = mean * (1 - mean), images * min(mean, 1 - mean)
    variance = (few * squares / images + 2 * largest) / (few + 2)
    size = images * largest / variance if variance > 0 else images
    return wilson(mean * size, size)


def wilson(k: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of k of n."""
    rate = k / n
    middle = rate + Z**2 / (2 * n)
    half = Z * sqrt(max(rate * (1 - rate) / n + Z**2 / (4 * n**2), 0))
    low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return 0.0 if k == 0 else low, 1.0 if k == n else high
