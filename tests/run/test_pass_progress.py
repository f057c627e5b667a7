"""Progress of a pass over the images."""

from functools import partial

import pytest

from src.attacks import mi
from src.run import passes
from tests.job_context import TRAINER


@pytest.mark.parametrize("gradients", [5, ""])  # stated or not
def test_progress_moves_within_batches_and_ends_with_all_images(
    run, networks, monkeypatch, gradients
):
    seen = []

    class Recorder(passes.Progress):
        def update(self, share, done="", then=""):
            seen.append((self.label, share, done))

    monkeypatch.setattr(passes, "Progress", Recorder)
    trainer = TRAINER.model_copy(update={"batch_size": 4, "progress_bar": True})
    attack, about = partial(mi, steps=3), {"gradients": gradients, "mixes": False}
    run(networks, attack, (2.0, 8.0), trainer=trainer, about=about, defences={"mirror": mirror})
    # The first batch is not attacked again. Without a stated number, its own progress is unknown.
    for name, images, taken in (("first batch of ", 3, 5 * 3), ("", 11, 5 * 8)):
        texts = {share: done for label, share, done in seen if label == f"{name}mine a"}
        assert [*texts] == sorted(texts) and len(texts) >= (6 if gradients or not name else 1)
        assert all(f"/{images} images, " in done for done in texts.values())
        assert texts[max(texts)].endswith(f"{taken}/{taken if gradients else '?'} gradients")


def mirror(images, random):
    """A defence that mirrors images."""
    return images.flip(-1)
