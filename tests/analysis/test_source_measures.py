"""Measures of two models' features and logits against their definitions."""

import numpy as np
import pandas as pd
import pytest

from findings.predictors import change_alignment, change_ratio, mutual_information
from src.analysis.source_measures import linear_cka

RANDOM = np.random.default_rng(0)


def unbiased_hsic(one, other):
    """Return the estimate of Song et al. from the two kernels."""
    count, kernels = len(one), [one @ one.T, other @ other.T]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)
    first, second = kernels
    sums = first.sum() * second.sum() / ((count - 1) * (count - 2))
    last = 2 * first.sum(axis=0) @ second.sum(axis=1) / (count - 2)
    return (np.trace(first @ second) + sums - last) / (count * (count - 3))


@pytest.mark.parametrize("width", [3, 50])
def test_cka_is_that_of_the_kernels(width):
    one = RANDOM.normal(size=(20, width)) + 3
    other = one[:, :2] @ RANDOM.normal(size=(2, 7)) + RANDOM.normal(size=(20, 7)) - 1
    whole = unbiased_hsic(one, other)
    expected = whole / np.sqrt(unbiased_hsic(one, one) * unbiased_hsic(other, other))
    assert linear_cka(one, other) == pytest.approx(expected)
    rotation = np.linalg.qr(RANDOM.normal(size=(width, width)))[0]
    assert linear_cka(one, 5 * one @ rotation + 1) == pytest.approx(1)


def test_cka_of_unrelated_features_is_small_where_there_are_many():
    values = [linear_cka(*RANDOM.normal(size=(2, 40, 500))) for _ in range(50)]
    assert abs(np.mean(values)) < 0.02
    assert np.isnan(linear_cka(np.ones((9, 4)), RANDOM.normal(size=(9, 4))))
    assert np.isnan(linear_cka(*RANDOM.normal(size=(2, 3, 4))))


def test_alpha_is_a_mean_of_ratios():
    change, own = RANDOM.normal(size=(2, 6, 4))
    ratios = [
        np.linalg.norm(one) / np.linalg.norm(other) for one, other in zip(change, own, strict=True)
    ]
    assert change_ratio(change, own) == pytest.approx(np.mean(ratios))
    own[2] = 0
    assert change_ratio(change, own) == pytest.approx(np.mean(np.delete(ratios, 2)))
    assert np.isnan(change_ratio(change, np.zeros_like(own)))


def test_gamma_is_the_norm_of_the_mean_outer_product():
    source, target = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 3))
    total = np.zeros((4, 3))
    for one, other in zip(source, target, strict=True):
        total += np.outer(one / np.linalg.norm(one), other / np.linalg.norm(other))
    expected = np.linalg.norm(total / 6) ** 2
    assert change_alignment(source, target) == pytest.approx(expected)
    same = np.tile(source[:1], (6, 1))
    assert change_alignment(same, np.tile(target[:1], (6, 1))) == pytest.approx(1)
    assert change_alignment(0 * source, target) == 0


def test_information_is_equal_in_both_directions():
    correct = pd.DataFrame(np.random.default_rng(0).random((301, 12)) < 0.7)
    information = mutual_information(correct).to_numpy()
    assert np.array_equal(information, information.T)
