"""Weight files: read safely, load strictly, write atomically, identify by content."""

import hashlib
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from src.utils.files import atomic_write, reason

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "model.", "network.")
TRAINING_HEADS = ("AuxLogits.", "aux1.", "aux2.")
COUNTER = "num_batches_tracked"


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file, without running any code that the file may hold.

    A dict under ``state_dict`` or ``model`` is unwrapped, and a prefix (``module.``, ``model.``,
    ``network.``) that all names share is stripped. In a ``.ckpt``, which may hold more than the
    network, names without that prefix are dropped.

    Args:
        path: A .pt, .pth, .ckpt or .safetensors file.

    Returns:
        Tensors by name, on the CPU, in the file's own types.

    Raises:
        ValueError: If the file is missing, damaged, of another kind, or holds anything but tensors.
    """
    return _strip(_read(Path(path)), partly=Path(path).suffix == ".ckpt")


def load_weights(network: nn.Module, path: str | Path, num_classes: int | None = None) -> None:
    """Load a file's weights into a network, in place; all or nothing.

    Float types are converted. Counters of batches seen may be missing, and heads that only training
    uses may be left over; neither changes a prediction.

    Args:
        network: The network to fill.
        path: As for `load_state`.
        num_classes: Number of classes of the data set, for the error message.

    Raises:
        ValueError: If the file cannot be read, or its names, shapes or types do not fit.
    """
    path = Path(path)
    own = network.state_dict()
    state = _read(path)
    if own.keys().isdisjoint(state):  # a prefix that the network itself has must stay
        state = _strip(state, partly=path.suffix == ".ckpt")
    state = {
        name: value
        for name, value in state.items()
        if name in own or not name.startswith(TRAINING_HEADS)
    }
    _check_fit(own, state, path, num_classes)
    network.load_state_dict(state, strict=False)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write a network's state dict as safetensors; readers never see a half-written file.

    Args:
        network: The network.
        path: The .safetensors file to write; its folder is made where missing.

    Raises:
        ValueError: If the path has another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are written as .safetensors, not as {path}.")
    # Cloned, since the format refuses tensors that share memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in _tensors(network)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(state))  # what `save_file` raises on a full disk is no OSError


def weights_digest(network: nn.Module) -> str:
    """Return 16 hexadecimal digits of a SHA-256 that identifies a network's weights.

    Names, types, shapes and values of the state dict count; the device, the memory format and the
    counters of batches seen, which no prediction depends on, do not.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(network)):
        if name.endswith(COUNTER):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the state dict's tensors; a network's extra state may hold other things."""
    return [(name, value) for name, value in network.state_dict().items() if torch.is_tensor(value)]


def _read(path: Path) -> dict[str, Tensor]:
    """Read and unwrap a file's state dict, names as stored."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is no weight file: it should end in {', '.join(SUFFIXES)}.")
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise ValueError(f"The weight file {path} does not exist.") from error
    except OSError as error:
        raise ValueError(f"The weight file {path} cannot be read: {reason(error)}.") from error
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():  # of a newer pickle protocol, which loads or is refused
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged or holds Python objects beside tensors, which are not unpickled "
            "since they can run code; save the network's state_dict alone."
        ) from error
    except (SafetensorError, OSError, *_DAMAGED) as error:
        raise ValueError(f"{path} cannot be read as weights; it is damaged or cut off.") from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict, but {_describe(content)}.")
    odd = [key for key, value in content.items() if not _is_entry(key, value)]
    if odd:
        raise ValueError(f"{path} holds more than named tensors, among them {odd[0]!r}.")
    return dict(content)


# What torch.load raises on damaged files, depending on where the damage lies.
_DAMAGED = (
    *(EOFError, RuntimeError, KeyError, IndexError, ValueError),
    *(TypeError, AttributeError, OverflowError, MemoryError, AssertionError, struct.error),
)


def _is_entry(key: object, value: object) -> bool:
    """Tell whether an item belongs in a state dict; torch adds ``_extra_state`` to some."""
    return isinstance(key, str) and isinstance(value, Tensor)


def _describe(content: object) -> str:
    """Name what a file holds instead of a state dict."""
    return "an empty dict" if isinstance(content, Mapping) else f"a {type(content).__name__}"


def _strip(state: dict[str, Tensor], partly: bool) -> dict[str, Tensor]:
    """Strip shared prefixes; with `partly`, drop the names that lack one."""
    for prefix in PREFIXES:
        carriers = {name: value for name, value in state.items() if name.startswith(prefix)}
        if carriers and (partly or len(carriers) == len(state)):
            bare = {name.removeprefix(prefix): value for name, value in carriers.items()}
            return _strip(bare, partly)
    return state


def _check_fit(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, num_classes: int | None
) -> None:
    """Refuse a state dict whose names, shapes or types differ from the network's own."""
    missing = [name for name in own if name not in state and not name.endswith(COUNTER)]
    unexpected = [name for name in state if name not in own]
    shared = [name for name in state if name in own]
    reshaped = [name for name in shared if state[name].shape != own[name].shape]
    if not missing and not unexpected and reshaped:
        _check_classes(own, state, reshaped, path, num_classes)
    problems = [
        *_listing("missing", missing),
        *_listing("unexpected", unexpected),
        *_listing(
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)} not {tuple(own[name].shape)}"
                for name in reshaped
            ],
        ),
    ]
    if problems:
        raise ValueError(f"{path} does not fit the network: {'; '.join(problems)}.")
    floats = [name for name in shared if own[name].is_floating_point()]
    quantised = [name for name in floats if not state[name].is_floating_point()]
    if quantised:
        raise ValueError(f"{path} holds {state[quantised[0]].dtype} values in {quantised[0]}.")
    infinite = [name for name in floats if not bool(state[name].isfinite().all())]
    if infinite:
        raise ValueError(f"{path} holds values that are not finite in {infinite[0]}.")


def _check_classes(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reshaped: list[str],
    path: Path,
    num_classes: int | None,
) -> None:
    """Raise if all that differs is the number of classes of one last layer."""
    pairs = {(len(state[name]), len(own[name])) for name in reshaped if own[name].ndim}
    parents = {name.rpartition(".")[0] for name in reshaped}
    same_rest = all(state[name].shape[1:] == own[name].shape[1:] for name in reshaped)
    if len(pairs) == 1 and len(parents) == 1 and same_rest:
        found, wanted = pairs.pop()
        if num_classes in (None, wanted):
            raise ValueError(f"{path} is for {found} classes, the data set has {wanted}.")


def _listing(what: str, names: list[str]) -> list[str]:
    """Return up to three names as one clause, and how many more there are."""
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]
