"""What networks share, from the config in a record."""

import pytest

from src.artifacts.comparable import overlaps
from src.artifacts.record import JobRecord
from src.models.providers import LOADER
from src.utils.package import find_asset
from tests.records import make_record

TIMM, OURS = "timm.create_model", "src.models.architectures"
MODELS = {
    "a1": ({"_target_": TIMM, "model_name": "resnet50.a1_in1k", "pretrained": True}, "included"),
    "a2": ({"_target_": TIMM, "model_name": "resnet50.a2_in1k", "pretrained": True}, "included"),
    "copy": ({"_target_": TIMM, "model_name": "resnet50.a1_in1k", "pretrained": True}, "included"),
    "wide": ({"_target_": TIMM, "model_name": "wide_resnet50_2.tv_in1k"}, None),
    "vit": ({"_target_": TIMM, "model_name": "vit_tiny.augreg_in21k", "pretrained": True}, None),
    "eva": ({"_target_": TIMM, "model_name": "eva02.clip_in22k", "pretrained": True}, "included"),
    "alexnet": (
        {"_target_": "torchvision.models.get_model", "name": "alexnet", "weights": "DEFAULT"},
        "included",
    ),
    "resnet50": ({"_target_": f"{OURS}.resnet50", "stem": None, "pretrained": False}, "a.pt"),
    "inception": ({"_target_": f"{OURS}.inception_v3"}, "/x/src/assets/vgg_small.safetensors"),
    "inception_v4": (
        {"_target_": TIMM, "model_name": "inception_v4"},
        "/x/src/assets/vit_small.safetensors",
    ),
    "deep": ({"_target_": "mine.net", "depth": 50}, "b.pt"),
    "shallow": ({"_target_": "mine.net", "depth": 18}, "c.pt"),
    "parts": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "d.pt"),
    "others": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "e.pt"),
    "class": ({"_target_": "mine.load", "name": "package.Net"}, "f.pt"),
    "other class": ({"_target_": "mine.load", "name": "package.Other"}, "g.pt"),
    "loaded": (
        {"_target_": LOADER, "name": "timm/resnet50.a1_in1k", "pretrained": True},
        "included",
    ),
    "reloaded": (
        {"_target_": LOADER, "name": "timm/resnet50.a2_in1k", "pretrained": True},
        "included",
    ),
    "module": ({"name": "ResNet"}, "included"),
    "another": ({"name": "ResNet"}, "included"),
}


def _record(models: dict[str, tuple], source: str) -> JobRecord:
    weights = {name: name for name in models} | {"copy": "a1"}
    config = {
        "model": {name: {"network": own, "weights": file} for name, (own, file) in models.items()}
    }
    facts = {"key": "", "images": 1, "class_names": ("cat",), "budgets": (0.0, 8.0)}
    return make_record(
        **facts, reference=8.0, source=source, attack="fgsm", weights=weights, config=config
    )


@pytest.mark.parametrize(
    ("source", "target", "shared"),
    [
        ("a1", "copy", "weights, architecture, family, pretraining, data"),
        ("a1", "a2", "architecture, family, data"),
        ("a1", "resnet50", "architecture, family"),
        ("a1", "wide", "family"),
        ("a1", "alexnet", "data"),
        ("a1", "eva", ""),
        ("wide", "vit", "data"),
        ("inception", "inception_v4", "family, data"),
        ("deep", "shallow", "family"),
        ("parts", "others", ""),
        ("module", "another", ""),
        ("class", "other class", ""),
        ("loaded", "reloaded", "architecture, data"),
        ("module", "module", "weights"),
        ("eva+a2@jpeg", "a1", "architecture, family, data"),
    ],
)
def test_pairs_share_what_their_files_say(source, target, shared):
    record = _record(MODELS, source)
    wanted = tuple(f"same {name}" for name in shared.split(", ") if name)
    assert overlaps(record, source, target) == wanted


def test_only_files_of_the_program_are_embedded(tmp_path, monkeypatch):
    """A user's folder `src/assets` is not the program's, whatever names its files have."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "src" / "assets"
    mine.mkdir(parents=True)
    (mine / "vgg_small.safetensors").touch()
    paths = {
        "elsewhere": "/x/src/assets/vit_small.safetensors",
        "wheel": "/x/site-packages/transferability/assets/vit_small.safetensors",
        "here": str(find_asset("assets/vit_small.safetensors")),
        "relative": "src/assets/vit_small.safetensors",
        "mine": "src/assets/vgg_small.safetensors",
        "absolute": str(mine / "vgg_small.safetensors"),
        "unknown": "/x/src/assets/mine.safetensors",
        "other": "/x/assets/vit_small.safetensors",
    }
    record = _record({name: ({"name": name}, path) for name, path in paths.items()}, "here")
    embedded = {"elsewhere", "wheel", "here", "relative"}
    shared = {name for name in paths if "same data" in overlaps(record, "elsewhere", name)}
    assert shared == embedded
