"""`experiment=paper` and `paper`: what reviewers ask of an attack, in one call."""

from typing import Annotated

import pytest
from pydantic import Field
from torch.nn.functional import cross_entropy

from src import paper


def downhill(model, images, labels, eps, *, steps: Annotated[int, Field(le=2)] = 1):
    """Lower the loss, beyond the budget."""
    at = images.requires_grad_()
    cross_entropy(model(at), labels, reduction="sum").backward()
    return (images - 3 * eps * at.grad.sign()).detach()


def test_an_attack_is_not_its_own_base():
    with pytest.raises(ValueError, match="Name another attack as base"):
        paper("mi", "mi", source="vgg_small", n_images=40)


@pytest.mark.slow
def test_a_page_answers_the_questions_and_calls_an_attack_worse():
    text = paper(downhill, source="vgg_small", n_images=40)
    first, secondary = text.split("# Secondary, not corrected")
    assert first.startswith("# mine is worse than mi (1 gradient): ")
    assert "were clipped" in first and "1 / 1 gradients" in first
    for rows in ("at 2/255", "at 8/255", "random-sign noise", "shuffled", "low-pass", "high-pass"):
        assert rows in secondary
    assert "jpeg, known" in secondary and "jpeg, unknown" in secondary
    settings = secondary.partition("How sensitive")[2]
    assert "steps=2" in settings and "steps=4" not in settings and "steps=0" not in settings
