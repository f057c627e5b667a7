"""Progress of a pass over the images."""

from functools import partial

import pytest

from src.attacks import mi
from src.run import predict
from tests.job_context import TRAINER


@pytest.mark.parametrize("gradients", [5, ""])  # stated or not
def test_progress_moves_within_batches_and_ends_with_all_images(
    run, networks, monkeypatch, gradients
):
    seen = []

    class Recorder(predict.Progress):
        def update(self, share, done="", then=""):
            seen.append((self.label, share, done))

    monkeypatch.setattr(predict, "Progress", Recorder)
    trainer = TRAINER.model_copy(update={"batch_size": 4, "progress_bar": True})
    attack, about = partial(mi, steps=3), {"gradients": gradients, "mixes": False}
    run(networks, attack, (2.0, 8.0), trainer=trainer, about=about, defences={"mirror": mirror})
    shares = [share for label, share, _ in seen if label != "clean images"]
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 3 * 3
    total = f"{11 * 5}" if gradients else "?"
    assert seen[-1][2] == f"11/11 images, {11 * 5}/{total} gradients"


def mirror(images, random):
    """A defence that mirrors images."""
    return images.flip(-1)
