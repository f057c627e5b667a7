"""What a saved set says of itself, and what it leaves to the settings."""

import numpy as np

import src.main
from src.config.compose import compose_words
from src.config.read import read_job
from src.experiment.saved_set import open_set, with_set


def test_a_foreign_set_leaves_the_ensemble_to_the_settings(tmp_path):
    np.save(tmp_path / "batch_0.npy", np.zeros((2, 3, 4, 4), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(2, dtype=int))
    words = [
        *("attack=saved", f"attack.path={tmp_path}", f"attack.clean={tmp_path}"),
        *("attack.eps_255=8", "attack.origin.source=vgg16+resnet50", "attack.origin.dataset=x"),
        *("source=[vgg16,resnet50]", "targets=[vgg16]", "ensemble=loss"),
    ]
    config = compose_words(src.main.CONF, words)
    settings = read_job(config, config.hydra)
    saved = open_set(settings)
    assert saved is not None
    found = with_set(settings, saved)
    assert (found.ensemble, found.protocol, found.budgets) == ("loss", "joint", (8.0,))
    assert found.source_name == "vgg16+resnet50" and found.dataset.name == "x"
