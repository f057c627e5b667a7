"""Tensor operations of every attack: each is a kernel launch on a GPU."""

import pytest

from benchmarks.attacks import names, operations

# Times the operations of the bare gradients.
BOUNDS = {
    **{"bsr": 6, "sia": 6, "cfm": 6, "s4st": 5},
    **{"ssa": 4, "mumodig": 4, "ops": 4, "l2t": 4},
}
"""The others: 3."""
QUICK = {"di", "fgsm"}


def attacks():
    for name in names():
        yield pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", [*attacks()])
def test_operations_do_not_grow_with_the_images_and_are_few(name):
    (few, _), (many, bare) = (operations(name, images) for images in (4, 12))
    assert many == pytest.approx(few, rel=0.01) and many <= BOUNDS.get(name, 3) * bare
