"""Weight files: safe reading, strict loading, saving, and digests of their content."""

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from src.models.prefixes import find_prefix, names_under
from src.models.restricted_pickle import load_pickle
from src.models.state_digest import tensor_bytes
from src.utils.refusals import first_line, shortened

TRAINING_ONLY = ("AuxLogits.", "aux1.", "aux2.", "n_averaged")
_ADDED = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
COUNTER = "num_batches_tracked"
_say_once = cache(logging.getLogger(__name__).warning)


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


def load_weights(network: nn.Module, path: str | Path, *, averaged: bool = True) -> None:
    """Load a file's state dict into a network, in place, without running code from the file.

    The file is a safetensors file, or from torch.save (.pt, .pth or .ckpt). The state dict may be
    in dicts, with a prefix such as ``module.`` or ``model.``, and beside other weights, see
    `find_prefix`. Float types are converted. Batch counters and state that is no tensor may be
    missing, and there may be additional heads that only training uses. Everything else must fit.

    Args:
        network: The network.
        path: The file.
        averaged: Take averaged weights, such as an exponential moving average, if the file has
            both; False: take the others.

    Raises:
        ValueError: The file cannot be read, does not fit, or has whole or complex numbers as
            weights.
    """
    path = Path(path)
    present, content = network.state_dict(), _read(path)
    stored = {_unwrapped(name): value for name, value in content.items()}
    names = {_unwrapped(name): name for name in present}
    if len(stored) < len(content) or len(names) < len(present):  # one of two copies is wrapped
        stored, names = content, {name: name for name in present}
    optional = {
        name: value
        for name, value in present.items()
        if name.endswith(COUNTER) or not torch.is_tensor(value)
    }
    needed = {short: present[name] for short, name in names.items() if name not in optional}
    prefix = find_prefix(path, stored, needed, averaged) if needed else ""
    state = OrderedDict(optional)
    for name in names_under(prefix, stored):
        short, value = name.removeprefix(prefix), stored[name]
        if short in names or (torch.is_tensor(value) and not short.startswith(TRAINING_ONLY)):
            state[names.get(short, short)] = value
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
    if digest is not None and digest != weights_digest(network):
        raise ValueError(f"{path} is damaged; delete it to train the network again")


def save_weights(network: nn.Module, path: Path, **facts: str) -> None:
    """Write a state dict as safetensors, with facts and a digest that reveals damage."""
    # Cloned, because the format refuses tensors that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in tensors_of(network)}
    metadata = {"digest": weights_digest(network), **facts}
    path.write_bytes(save(state, metadata))  # on a full disk `save_file` raises no OSError


def weights_digest(network: nn.Module) -> str:
    """Compute the digest of the tensors in a network's state dict, see `tensors_digest`."""
    return tensors_digest(tensors_of(network))


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


def _unwrapped(name: str) -> str:
    """Return a name without what compiling and distributed training add to it."""
    return re.sub(rf"(?<![^./])({'|'.join(_ADDED)})\.", "", name)


def _read(path: Path) -> dict[str, Any]:
    """Read a file's values by name; names in a dict begin with its key and `/`."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content, hidden = load_pickle(path)
        values = dict(_flat(dict(enumerate(content)) if isinstance(content, tuple) else content))
    except Exception as error:  # the type depends on the damage
        script = "TorchScript" in str(error)
        raise ValueError(
            f"{path} cannot be read as a state dict of tensors, as torch.save(model.state_dict()) "
            "writes it. Nothing else is unpickled, because that can run code "
            f"({type(error).__name__}: {first_line(error).partition('. ')[0][:200]})"
            f"{'. ' + _conversion(path, 'torch.jit.load({})') if script else ''}"
        ) from error
    objects = f"objects of {shortened(hidden)} are not read" * bool(hidden)
    if not any(map(torch.is_tensor, values.values())):
        way = _conversion(path, "torch.load({}, weights_only=False)")
        raise ValueError(f"{path} has no tensors by name{'; ' * bool(hidden)}{objects}. {way}")
    if hidden:
        _say_once("%s: %s.", path, objects)
    return values


def _flat(content: dict[Any, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested dicts with their names."""
    for key, value in content.items():
        if isinstance(value, dict) and not str(key).endswith("_extra_state"):
            yield from _flat(value, f"{start}{key}/")
        else:
            yield f"{start}{key}", value


def _conversion(path: Path, load: str) -> str:
    """Return the two lines that convert a file of a whole network."""
    lines = f"net = {load.format(repr(str(path)))}; torch.save(net.state_dict(), 'weights.pt')"
    return f"Convert it in Python, where its network's code is installed: {lines}"
