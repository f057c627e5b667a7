"""The fixed, class-balanced subset."""

import numpy as np
import pytest

from src.data import balanced_subset

LABELS = np.repeat(np.arange(7, dtype=np.int64), [30, 2, 20, 50, 40, 33, 25])


def test_every_class_gets_floor_or_ceil_as_far_as_it_has_them():
    labels = np.tile(np.arange(7, dtype=np.int64), 20)
    for n_images in range(1, 140):
        counts = np.bincount(labels[balanced_subset(labels, n_images, seed=3)], minlength=7)
        assert counts.sum() == n_images
        assert set(counts) <= {n_images // 7, -(-n_images // 7)}
    counts = np.bincount(LABELS[balanced_subset(LABELS, 62)])
    assert counts.tolist() == [10, 2, 10, 10, 10, 10, 10]


def test_subsets_are_ascending_and_nested():
    previous: set[int] = set()
    for n_images in range(1, 201, 3):
        chosen = balanced_subset(LABELS, n_images, seed=1)
        assert (np.diff(chosen) > 0).all() and previous < set(chosen)
        previous = set(chosen)
    assert np.array_equal(balanced_subset(LABELS, None), np.arange(200))


def test_the_choice_depends_on_the_seed_alone_in_every_version():
    state = np.random.get_state()[1].copy()
    first = balanced_subset(LABELS, 50, 0)
    assert not np.array_equal(first, balanced_subset(LABELS, 50, 1))
    assert np.array_equal(state, np.random.get_state()[1])
    labels = np.tile(np.arange(3, dtype=np.int64), 10)
    assert balanced_subset(labels, 6, seed=0).tolist() == [2, 13, 24, 26, 27, 28]


@pytest.mark.parametrize("n_images", [0, -1, 201])
def test_wrong_n_images_is_refused(n_images):
    with pytest.raises(ValueError, match=f"n_images={n_images!r}"):
        balanced_subset(LABELS, n_images)
