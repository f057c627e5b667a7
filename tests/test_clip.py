"""The page's CLIP: its file loads weights as these are published, and no code."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from src import load_classifier
from src.data.cifar10_mini import CLASSES
from tests.test_documented_commands import MAIN, SIZES, words_of, write_printed

TINY_CLIP = ["model.clip.network.architecture=tiny", "model.clip.input_size=32"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the files that the pages print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield write_printed(tmp_path)
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def loaded(*words):
    """Return the page's model, with the layers as built."""
    words = ("trainer.fold_batch_norms=false", *words)
    return load_classifier("clip", *words, config_dir="mine")


def run_command(run_in, folder, *words):
    """Run the page's command on the embedded images."""
    (command,) = [one for one in MAIN if re.search(r"\bclip\b", one)]
    given = [word for word in words_of(command) if not word.startswith("dataset=")]
    return run_in(folder, *given, *SIZES, "dataset=cifar10_mini", *words)


def random_images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def write_clip(folder):
    """Write a checkpoint as open_clip's training does, and return its tiny network."""
    open_clip = pytest.importorskip("open_clip")
    tower = {"width": 32, "layers": 1}
    config = {
        "embed_dim": 16,
        "vision_cfg": {**tower, "image_size": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {**tower, "context_length": 77, "vocab_size": 49408, "heads": 2},
    }
    (folder / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny.json")
    clip = open_clip.CLIP(**config).eval()
    state = {f"module.{name}": value for name, value in clip.state_dict().items()}
    torch.save({"epoch": 1, "name": "tiny", "state_dict": state}, folder / "clip.pt")
    return clip


def test_clip_compares_images_with_the_names_of_classes(folder, run_in):
    clip = write_clip(folder)
    words = [*TINY_CLIP, "model.clip.network.file=clip.pt"]
    from open_clip import tokenize

    with torch.no_grad():
        found = loaded("dataset=cifar10_mini", *words)(random_images())
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        images = clip.encode_image((random_images() - mean) / std).double()
        texts = clip.encode_text(tokenize([f"a photo of a {name}." for name in CLASSES])).double()
    lengths = images.square().sum(1).outer(texts.square().sum(1)).sqrt()
    expected = 100 * (images @ texts.T) / lengths
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    assert run_command(run_in, folder, *words) == 0


class Attack:
    def __reduce__(self):
        return os.mkdir, ("created-by-a-pickle",)


def test_no_file_of_weights_runs_code(folder):
    write_clip(folder)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "x": Attack()}, folder / "w.pt")
    with pytest.raises(ValueError, match=r"^model clip: w\.pt cannot be read") as caught:
        loaded("dataset=cifar10_mini", *TINY_CLIP, "model.clip.network.file=w.pt")
    assert "\n" not in str(caught.value) and not Path("created-by-a-pickle").exists()
