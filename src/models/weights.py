"""Weight files: safe reading, strict loading, saving and digests of content."""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from src.utils.refusals import first_line

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last")
TRAINING_HEADS = ("AuxLogits.", "aux1.", "aux2.")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightFacts:
    """Facts that a weight file states of itself.

    Attributes:
        class_names: Classes that the weights tell apart, in the order of the logits; or none.
        expected_accuracy: Accuracy on clean test images of these classes, in [0, 1].
    """

    class_names: tuple[str, ...] = ()
    expected_accuracy: float | None = None


def weight_facts(path: str | Path) -> WeightFacts:
    """Return the facts in the metadata of a safetensors file, under the names of `WeightFacts`."""
    stated = _metadata(path)
    names = [name.strip() for name in stated.get("class_names", "").split(",")]
    accuracy = stated.get("expected_accuracy")
    return WeightFacts(tuple(filter(None, names)), None if accuracy is None else float(accuracy))


def _metadata(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):  # another format; what is damaged shows in loading
        return {}


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file's state dict into a network, in place, without running code the file may hold.

    The file is of safetensors or of torch.save, such as a .pt, .pth or .ckpt. A dict under
    ``state_dict``, ``model_state_dict``, ``model``, ``net`` or ``last`` is unwrapped, and prefixes
    that all names share, such as ``module.``, are stripped. Float types are converted.
    Counters of batches seen may be missing, and heads that only training uses may be left over:
    neither changes a prediction. Names and shapes must fit, after timm's own conversion of files of
    its earlier versions where the network is one of timm's.

    Raises:
        ValueError: The file cannot be read as tensors alone, or does not fit.
    """
    path = Path(path)
    own = network.state_dict()
    given = _converted(_stripped(_read(path), own.keys()), network)
    state = OrderedDict((name, value) for name, value in own.items() if name.endswith(COUNTER))
    for name, value in given.items():
        if name in own or not name.startswith(TRAINING_HEADS):
            state[name] = value
    state._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]  # versions
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        told = str(error).partition(":")[2]  # behind torch's heading
        why = _misfits(own, state) or " ".join(told.split())[:400]
        raise ValueError(f"{path} does not fit the network: {why}") from error
    digest = _metadata(path).get("digest")
    if digest is not None and digest != weights_digest(network):
        raise ValueError(f"{path} is damaged; without it the network is trained again")


def _misfits(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Count the tensors that are missing, unknown, none or misshapen, and name one of each."""
    both = [name for name, value in own.items() if torch.is_tensor(value) and name in given]
    tensors = [name for name in both if torch.is_tensor(given[name])]
    shapes = {name: (tuple(given[name].shape), tuple(own[name].shape)) for name in tensors}
    found = {
        "missing": [name for name in own if name not in given],
        "unknown": [name for name in given if name not in own],
        "no tensor": [name for name in both if name not in tensors],
        "of another shape": [
            f"{name}, {theirs} for {ours}"
            for name, (theirs, ours) in shapes.items()
            if theirs != ours
        ],
    }
    told = [f"{len(names)} {kind} ({names[0]})" for kind, names in found.items() if names]
    return f"of {len(own)} tensors {'; '.join(told)}" if told else ""


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's state dict as safetensors, with the digest that shows damage."""
    # Cloned, since the format refuses tensors that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in _tensors(network)}
    stated = {"digest": weights_digest(network)}
    path.write_bytes(save(state, stated))  # on a full disk `save_file` raises no OSError


def weights_digest(network: nn.Module) -> str:
    """Return 16 hexadecimal digits of a SHA-256 that identifies a network's weights.

    Names, types, shapes and values of the state dict count; the device, the memory format and the
    counters of batches seen, which no prediction depends on, do not.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(network)):
        if not name.endswith(COUNTER):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the state dict's tensors; a network's extra state may hold other things."""
    return [(name, value) for name, value in network.state_dict().items() if torch.is_tensor(value)]


def _read(path: Path) -> dict[str, Tensor]:
    """Read and unwrap a file's state dict, names as stored."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Not timm's load_state_dict, which unpickles everything in older versions.
        content = torch.load(path, map_location="cpu", weights_only=True)
        for key in WRAPPERS:
            if isinstance(content.get(key), dict):
                content = content[key]
        return {str(name): value for name, value in content.items()}
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(
            f"{path} cannot be read as a state dict of tensors, as torch.save(model.state_dict()) "
            "writes it; nothing else is unpickled, since that can run code "
            f"({type(error).__name__}: {first_line(error).partition('. ')[0][:200]})"
        ) from error


def _converted(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return a state dict under the names of the installed timm, if the network is one of its."""
    home = sys.modules[type(network).__module__]
    convert = getattr(home, "checkpoint_filter_fn", None)
    if convert is None or state.keys() <= network.state_dict().keys():
        return state
    try:
        return dict(convert(dict(state), network))
    except Exception:  # of many kinds; what does not fit shows in loading
        return state


def _stripped(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Strip the prefixes that all names share, if that leads to names of the network."""
    left = state
    while left and left.keys().isdisjoint(own):
        prefix = next(iter(left)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in left):
            return state
        left = {name.removeprefix(prefix): value for name, value in left.items()}
    return left
