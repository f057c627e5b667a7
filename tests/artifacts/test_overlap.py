"""What networks share, from the config in a record."""

import pytest

from src.artifacts.overlap import overlaps
from tests.conftest import make_record

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
    "inception": ({"_target_": f"{OURS}.inception_v3"}, "/x/src/assets/y.safetensors"),
    "inception_v4": ({"_target_": TIMM, "model_name": "inception_v4"}, "/x/src/assets/z"),
    "deep": ({"_target_": "mine.net", "depth": 50}, "b.pt"),
    "shallow": ({"_target_": "mine.net", "depth": 18}, "c.pt"),
    "parts": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "d.pt"),
    "others": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "e.pt"),
    "module": ({"name": "ResNet"}, "included"),
    "another": ({"name": "ResNet"}, "included"),
}


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
        ("module", "module", "weights"),
        ("eva+a2@jpeg", "a1", "architecture, family, data"),
    ],
)
def test_pairs_share_what_their_files_say(source, target, shared):
    weights = {name: name for name in MODELS} | {"copy": "a1"}
    config = {
        "model": {name: {"network": own, "weights": file} for name, (own, file) in MODELS.items()}
    }
    facts = {"key": "", "images": 1, "class_names": ("cat",), "budgets": (0.0, 8.0)}
    record = make_record(
        **facts, reference=8.0, source=source, attack="fgsm", weights=weights, config=config
    )
    wanted = tuple(f"same {name}" for name in shared.split(", ") if name)
    assert overlaps(record, source, target) == wanted
