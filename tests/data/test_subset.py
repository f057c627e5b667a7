"""The fixed, class-balanced subset."""

import numpy as np
import pytest

from src.data import balanced_subset

LABELS = np.repeat(np.arange(7, dtype=np.int64), [30, 2, 20, 50, 40, 33, 25])


def counts_of(chosen):
    return np.bincount(LABELS[chosen], minlength=7)


def test_every_class_gets_floor_or_ceil():
    labels = np.tile(np.arange(7, dtype=np.int64), 20)
    for n_images in range(1, 140):
        chosen = balanced_subset(labels, n_images, seed=3)
        assert len(set(chosen)) == n_images
        assert set(np.bincount(labels[chosen], minlength=7)) <= {n_images // 7, -(-n_images // 7)}


def test_small_class_gives_all_and_others_fill_up_evenly():
    counts = counts_of(balanced_subset(LABELS, 62))
    assert counts[1] == 2
    assert set(np.delete(counts, 1)) == {10}


def test_subsets_are_ascending_and_nested():
    previous: set[int] = set()
    for n_images in range(1, 201, 3):
        chosen = balanced_subset(LABELS, n_images, seed=1)
        assert (np.diff(chosen) > 0).all()
        assert previous < set(chosen)
        previous = set(chosen)


def test_choice_depends_on_seed_only():
    state = np.random.get_state()[1].copy()
    first, again = balanced_subset(LABELS, 50, 0), balanced_subset(LABELS, 50, 0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, balanced_subset(LABELS, 50, 1))
    assert np.array_equal(state, np.random.get_state()[1])


def test_choice_is_the_same_in_every_version():
    labels = np.tile(np.arange(3, dtype=np.int64), 10)
    assert balanced_subset(labels, 6, seed=0).tolist() == [2, 13, 24, 26, 27, 28]


def test_null_takes_all():
    assert np.array_equal(balanced_subset(LABELS, None), np.arange(200))


@pytest.mark.parametrize("n_images", [0, -1, 201])
def test_wrong_n_images_is_refused(n_images):
    with pytest.raises(ValueError, match=f"n_images={n_images!r}"):
        balanced_subset(LABELS, n_images)
