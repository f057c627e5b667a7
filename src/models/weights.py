"""Weight files: safe reading, strict loading, saving, and digests of their content."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from src.models.state_digest import no_tensors, tensor_bytes, value_digest
from src.utils.refusals import first_line

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last")
TRAINING_HEADS = ("AuxLogits.", "aux1.", "aux2.")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightFacts:
    """Facts that a weight file states about its weights.

    Attributes:
        class_names: Names of the classes in the order of the logits; empty: not stated.
        expected_accuracy: Accuracy on clean test images of these classes, in [0, 1].
        tested: Numbers of correct and of all test images, if this program trained the weights;
            otherwise zeros.
    """

    class_names: tuple[str, ...] = ()
    expected_accuracy: float | None = None
    tested: tuple[int, int] = (0, 0)


def weight_facts(path: str | Path, model: str = "") -> WeightFacts:
    """Read the facts in a safetensors file's metadata, under the names of `WeightFacts`.

    Raises:
        ValueError: They are impossible; the message names the file and the `model`.
    """
    metadata = _metadata(path)
    names = [name.strip() for name in metadata.get("class_names", "").split(",")]
    accuracy, tested = metadata.get("expected_accuracy"), metadata.get("tested", "0 / 0")
    try:
        expected = None if accuracy is None else float(accuracy)
        correct, count = map(int, tested.split("/"))
        if not (0 <= correct <= count and 0 <= (expected or 0) <= 1):
            raise ValueError("out of range")
    except ValueError as error:
        raise ValueError(
            f"{path}{f' of model {model}' * bool(model)} has the metadata expected_accuracy="
            f"{accuracy!s:.40}, tested={tested:.40}. Write an accuracy in [0, 1] and CORRECT / "
            "COUNT, or leave them out."
        ) from error
    return WeightFacts(tuple(filter(None, names)), expected, (correct, count))


def _metadata(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):  # another format; loading finds damage
        return {}


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file's state dict into a network, in place, without running code from the file.

    The file is a safetensors file, or from torch.save (.pt, .pth or .ckpt). A dict under
    ``state_dict``, ``model_state_dict``, ``model``, ``net`` or ``last`` is unwrapped, and prefixes
    that all names share, such as ``module.``, are stripped. Float types are converted. Batch
    counters may be missing, and there may be additional heads that only training uses. Everything
    else must fit.

    Raises:
        ValueError: The file cannot be read as tensors only, does not fit, or has whole or complex
            numbers as weights.
    """
    path = Path(path)
    present = network.state_dict()
    stored = _strip_prefixes(_read(path), present.keys())
    state = OrderedDict((name, value) for name, value in present.items() if name.endswith(COUNTER))
    for name, value in stored.items():
        if name in present or not name.startswith(TRAINING_HEADS):
            state[name] = value
    for name, own in tensors_of(network):
        new = state.get(name)
        if torch.is_tensor(new) and own.is_floating_point() and not new.is_floating_point():
            raise ValueError(
                f"{path}: {name} is {new.dtype}. Save floating-point weights, unpacked."
            )
    state._metadata = getattr(present, "_metadata", None)  # type: ignore[attr-defined]  # versions
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        misfits = " ".join(str(error).partition(":")[2].split())  # after torch's heading
        raise ValueError(f"{path} does not fit the network: {misfits[:400]}") from error
    digest = _metadata(path).get("digest")
    if digest is not None and digest != tensors_digest(tensors_of(network)):
        raise ValueError(f"{path} is damaged; delete it to train the network again")


def save_weights(network: nn.Module, path: Path, **facts: str) -> None:
    """Write a state dict as safetensors, with facts and a digest that reveals damage."""
    # Cloned, because the format refuses tensors that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in tensors_of(network)}
    metadata = {"digest": tensors_digest(tensors_of(network)), **facts}
    path.write_bytes(save(state, metadata))  # on a full disk `save_file` raises no OSError


def weights_digest(network: nn.Module) -> str:
    """Compute the digest of a network's state dict: its tensors and, if any, its other state."""
    digest, others = tensors_digest(tensors_of(network)), no_tensors(network.state_dict())
    try:
        return value_digest([digest, others]) if others else digest
    except Exception:  # of any type: objects decide how they are pickled
        return digest


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Compute 16 hexadecimal digits of the SHA-256 of tensors' names, types, shapes and values.

    Device, memory format and batch counters make no difference.
    """
    digest = hashlib.sha256()
    for name, value in sorted(tensors, key=itemgetter(0)):
        if not name.endswith(COUNTER):
            digest.update(f"{name} ".encode())
            for part in tensor_bytes(value):
                digest.update(part)
    return digest.hexdigest()[:16]


def network_text(network: nn.Module) -> str:
    """Return a network's repr without memory addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(network))


def tensors_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the state dict's tensors by name; quantised layers and extra state are left out."""
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
    except Exception as error:  # the type depends on the damage
        raise ValueError(
            f"{path} cannot be read as a state dict of tensors, as torch.save(model.state_dict()) "
            "writes it. Nothing else is unpickled, because that can run code "
            f"({type(error).__name__}: {first_line(error).partition('. ')[0][:200]})"
        ) from error


def _strip_prefixes(state: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Strip the prefixes that all names share, if this yields names of the network."""
    left = state
    while left and left.keys().isdisjoint(names):
        prefix = next(iter(left)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in left):
            return state
        left = {name.removeprefix(prefix): value for name, value in left.items()}
    return left
