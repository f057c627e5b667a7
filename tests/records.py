"""Records of made-up jobs."""

from typing import Any

from src.artifacts.record import JobRecord


def make_record(**facts: Any) -> JobRecord:
    """Return the record of a made-up job; every model is a target and has weights.

    As in a job's own record, an ensemble has weights, and no settings of a model.
    """
    none: dict[str, Any] = {}
    config = {
        "attack": {"kind": "crafted", "target_label": None, "norm": "linf", "settings": none},
        "dataset": {"name": "made-up"},
        "ensemble": "logits",
        "model": {
            name: {"network": {"name": name}} for name in facts["weights"] if "+" not in name
        },
        "source": [facts["source"]],
        "sweep": None,
        "trainer": {"attack_precision": "32-true", "batch_size": 50, "fold_batch_norms": True},
    }
    values = {
        **{"crafting": "", "target_keys": none, "gradients": 0, "zero_gradients": 0},
        **{"seconds": None, "code": none, "data": "data", "values": 192, "device": "cpu"},
        **{"backward_rule": "", "layer": "", "targets": list(facts["weights"]), "defences": ()},
        **{"label": facts["attack"], "iterative": False, "norm": "linf", "protocol": "joint"},
        **{"storage": "float32", "dataset": "made-up", "seed": 0, "precision": "32-true"},
        **{"overrides": (), "flags": (), "created": "", "commit": "", "versions": none},
    }
    return JobRecord(**values | facts | {"config": config | facts.get("config", {})})
