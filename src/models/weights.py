"""Weight files: safe reading, strict loading, saving, and digests of their content."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..utils.refusals import first_line, shortened, warn_once
from .restricted_pickle import load_pickle
from .state_digest import tensor_bytes

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last")
"""Keys of state dicts in files. If several fit, the first one is taken."""
_NUMBERS = ("class_to_idx", "label2id")
CLASSES = (*_NUMBERS, "idx_to_class", "id2label", "class_names", "classes", "names", "categories")
"""Keys of class names in checkpoints: lists, or dicts from names to numbers or back."""
_AVERAGED = re.compile(
    r"((^|[./_-])(?i:ema|swa|avg|average|averaged|shadow)|[a-z](EMA|Ema|SWA|Swa))(?=[./_-])"
)
_OF_AN_OPTIMIZER = re.compile(r"(^|[./_-])optim|exp_avg|momentum_buffer", re.IGNORECASE)
TRAINING_ONLY = ("AuxLogits.", "aux1.", "aux2.", "n_averaged")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightFacts:
    """Facts that a weight file states about its weights.

    Attributes:
        class_names: Names of the classes in the order of the logits; empty: not stated.
        expected_accuracy: Accuracy on clean test images of these classes, in [0, 1].
        tested: Numbers of correct and of all test images, if this program trained the weights;
            otherwise zeros.
        lists: Lists of names in a checkpoint, which may be those of the classes in this order.
    """

    class_names: tuple[str, ...] = ()
    expected_accuracy: float | None = None
    tested: tuple[int, int] = (0, 0)
    lists: tuple[tuple[str, ...], ...] = ()


class MisfitError(ValueError):
    """Error: a network or its weights have another number of classes, or other shapes.

    Attributes:
        classes: Number of classes of the network; 0: unknown.
    """

    def __init__(self, text: str, classes: int = 0) -> None:
        super().__init__(text)
        self.classes = classes


def weight_facts(path: str | Path, model: str = "") -> WeightFacts:
    """Read the facts in a safetensors file's metadata, under the names of `WeightFacts`.

    Of another file, read the lists of names, stated as in `CLASSES` at any depth.

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
    lists: tuple[tuple[str, ...], ...] = ()
    if not metadata:
        with suppress(Exception):  # loading finds damage
            lists = tuple(_lists(load_pickle(Path(path), mmap=is_zipfile(path))[0], set()))
    return WeightFacts(tuple(filter(None, names)), expected, (correct, count), lists)


def _metadata(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):  # another format; loading finds damage
        return {}


def _lists(content: Any, seen: set[int]) -> Iterator[tuple[str, ...]]:
    """Yield the lists of names in nested dicts, in the order of their numbers."""
    if not isinstance(content, dict) or id(content) in seen:
        return
    seen.add(id(content))
    for key, value in content.items():
        if key in CLASSES and (names := _in_order(value, key in _NUMBERS)):
            yield names
        yield from _lists(value, seen)


def _in_order(stated: Any, by_name: bool) -> tuple[str, ...]:
    """Return the names in a list, or in a dict in either direction, or else none."""
    if isinstance(stated, dict) and stated:
        pairs = [*stated.items()]
        ways = [pairs, [pair[::-1] for pair in pairs]]  # from number to name, and back
        if isinstance(pairs[0][1], int) and (by_name or isinstance(pairs[0][0], str)):
            ways.reverse()
        numbers = [str(number) for number in range(len(pairs))]
        tables = ({str(number): name for number, name in way} for way in ways)
        stated = next(([ids[n] for n in numbers] for ids in tables if {*ids} == {*numbers}), None)
    texts = isinstance(stated, list | tuple) and all(isinstance(name, str | int) for name in stated)
    return tuple(map(str, stated)) if texts else ()


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
    # What the file lacks stays as it is, or shares memory with what it has.
    state, stored = network.state_dict(), _read(path)
    needed = {name: tensor for name, tensor in tensors_of(network) if not name.endswith(COUNTER)}
    prefix = find_prefix(path, stored, needed, averaged) if needed else ""
    for name in names_under(prefix, stored):
        short, value = name.removeprefix(prefix), stored[name]
        if short in state or (torch.is_tensor(value) and not short.startswith(TRAINING_ONLY)):
            state[short] = value
    for name, tensor in tensors_of(network):
        new = state.get(name)
        if torch.is_tensor(new) and tensor.is_floating_point() and not new.is_floating_point():
            raise ValueError(
                f"{path}: {name} is {new.dtype}. Save floating-point weights, unpacked."
            )
    try:
        with warnings.catch_warnings(action="ignore"):  # a network on the meta device has no values
            network.load_state_dict(state)
    except RuntimeError as error:
        misfits = " ".join(str(error).partition(":")[2].split())  # after torch's heading
        shapes = ((state[name], tensor) for name, tensor in tensors_of(network) if name in state)
        unlike = any(torch.is_tensor(new) and new.shape != old.shape for new, old in shapes)
        kind = MisfitError if unlike else ValueError
        raise kind(f"{path} does not fit the network: {misfits[:400]}") from error
    digest = _metadata(path).get("digest")
    outline = any(tensor.is_meta for _, tensor in tensors_of(network))
    if digest is not None and not outline and digest != weights_digest(network):
        raise ValueError(f"{path} is damaged; delete it to train the network again")


def find_prefix(
    path: Path, stored: Mapping[str, Any], needed: Mapping[str, Tensor], averaged: bool
) -> str:
    """Return the prefix that a network's state dict has in a file, and log a choice.

    All names that the network needs must follow the prefix, except parts of another's memory, as
    tied weights are. Prefixes with the network's shapes are preferred.

    Args:
        path: The file, for messages.
        stored: The file's values by name; names in a dict begin with its key and `/`.
        needed: The network's tensors by name.
        averaged: Take averaged weights if the file has both; False: take the others.

    Raises:
        ValueError: There is no such prefix, or several are as good.
    """
    tensors = {name: value for name, value in stored.items() if torch.is_tensor(value)}
    starts = ((name, (0, *(m.end() for m in re.finditer("[./]", name)))) for name in tensors)
    counts = Counter(name[:at] for name, places in starts for at in places if name[at:] in needed)
    missing = {prefix: _missing(prefix, tensors, needed) for prefix in counts or ("",)}
    named = [key for key in missing if not missing[key] and not _OF_AN_OPTIMIZER.search(key)]
    if not named:
        best = max(missing, key=lambda prefix: (counts[prefix], len(prefix)))
        raise ValueError(
            f"{path} does not fit the network. The file has {shortened([*tensors])}; the network "
            f"{shortened([*needed])}. Under {best or 'no prefix'}, {counts[best]} of {len(needed)} "
            f"names are found, but not {shortened(missing[best])}."
        )
    new = {name: one.shape for name, one in needed.items() if not is_lazy(one)}
    stated = ({k: tensors[key + k].shape for k in new if key + k in tensors} for key in named)
    fits = [key for key, shapes in zip(named, stated, strict=True) if shapes.items() <= new.items()]
    means = [prefix for prefix in fits if _AVERAGED.search(prefix)]
    others = [prefix for prefix in fits or named[:1] if prefix not in means]
    chosen = means if means and (averaged or not others) else others
    wrapped = [start for key in WRAPPERS for start in chosen if start.startswith(f"{key}/")]
    if len(chosen) > 1 and not wrapped:
        raise ValueError(f"{path}: weights under {shortened(chosen)} fit. Keep one of them.")
    prefix = [*wrapped, *chosen][0]
    directory = prefix[: prefix.rfind("/") + 1]
    beside = [name for name in names_under(directory, tensors) if not name.startswith(prefix)]
    if means and others and averaged:
        warn_once("%s: %s are averaged. For the others: model.NAME.averaged=false", path, prefix)
    elif beside := [*beside, *(start for start in fits if start != prefix)]:
        warn_once("%s: the weights under %s are used, not %s.", path, prefix, shortened(beside))
    return prefix


def _missing(prefix: str, tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> list[str]:
    """Return the names that a prefix lacks, except those in the memory of a found tensor."""
    missing = [name for name in needed if prefix + name not in tensors]
    memory = {name: one.untyped_storage() for name, one in needed.items() if missing and one.nbytes}
    found = memory.keys() - {*missing}  # not by `data_ptr`, which is 0 on the meta device
    whole = {memory[k]._cdata for k in found if memory[k].nbytes() == needed[k].nbytes}
    return [name for name in missing if name not in memory or memory[name]._cdata not in whole]


def names_under(prefix: str, names: Mapping[str, Any]) -> list[str]:
    """Return the names that begin with a prefix, except those in a dict further down."""
    return [name for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :]]


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


def _read(path: Path) -> dict[str, Any]:
    """Read a file's values by name; names in a dict begin with its key and `/`."""
    lines = "net = torch.load({!r}, weights_only=False); torch.save(net.state_dict(), 'weights.pt')"
    way = f"Convert it where the code of its network is installed: {lines.format(str(path))}"
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content, hidden = load_pickle(path)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not tensors by name")
        values = dict(_flat(content))
    except Exception as error:  # the type depends on the damage
        raise ValueError(
            f"{path} cannot be read as a state dict of tensors, as torch.save(model.state_dict()) "
            "writes it. Nothing else is unpickled, because that can run code "
            f"({type(error).__name__}: {first_line(error).partition('. ')[0][:200]})"
            f"{f'. {way}' * ('TorchScript' in str(error))}"
        ) from error
    objects = f"{path}: objects of {shortened(hidden)} are not read."
    if not any(map(torch.is_tensor, values.values())):
        raise ValueError(f"{objects if hidden else path} There are no tensors by name. {way}")
    if hidden:
        warn_once(objects)
    return values


def _flat(content: dict[Any, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested dicts with their names."""
    for key, value in content.items():
        if isinstance(value, dict) and not str(key).endswith("_extra_state"):
            yield from _flat(value, f"{start}{key}/")
        else:
            yield f"{start}{key}", value
