"""The modules and images of a call to `transfer`, checked and in the form that a job needs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import getsource
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..cache.keys import content_key
from ..data import ImageDataset, LabelledImages, to_rgb
from ..data.arrays import check_whole, grey_levels
from ..models import PixelClassifier, network_text, tensors_of, try_classifier
from ..run.check_job import build_job
from ..run.data import DataSets, mixing_pool, open_fit_images
from ..run.models import with_ensemble
from ..run.stages import JobContext, Model, Planned
from ..utils.devices import arithmetic, is_cuda, named_errors
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.networks import copy_network
from ..utils.package import canonical_name
from ..utils.refusals import first_line


class Inputs:
    """The checked modules and images of one call to `transfer`."""

    def __init__(
        self,
        sources: Mapping[str, nn.Module | Sequence[nn.Module]],
        targets: Mapping[str, nn.Module | Sequence[nn.Module]],
        images: Any,
        labels: ArrayLike | Tensor | None,
        target_labels: ArrayLike | Tensor | None,
        index: ArrayLike | Tensor | None,
        fit_images: tuple[Any, ...] | None = None,
        class_names: ArrayLike | None = None,
    ) -> None:
        if torch.is_inference_mode_enabled():
            raise ValueError("Attacks need gradients: call this outside torch.inference_mode().")
        levels, labels = read_images("images", images, labels)
        classes, numbers = (
            None if values is None else _whole(key, values, len(levels))
            for key, values in (("target_labels", target_labels), ("index", index))
        )
        if numbers is not None and (np.diff(numbers, prepend=-1) <= 0).any():
            raise ValueError("index must be strictly increasing and not negative.")
        modules = _modules(sources, targets)
        devices = {value.device for module in modules.values() for _, value in tensors_of(module)}
        if len(devices) > 1:
            raise ValueError(f"The modules are on {len(devices)} devices; move all to one device.")
        self.targets = list(targets)
        self.device = devices.pop() if devices else levels.device
        self.networks = {
            name: _classifier(name, module).to(self.device) for name, module in modules.items()
        }
        with arithmetic(self.device.type, "32-true"):  # as when a job runs
            tried = (try_classifier(net, None, levels.shape[-1]) for net in self.networks.values())
            counts = sorted({logits.shape[1] for logits in tried})
        if len(counts) > 1:
            way = " If the first of them is the background, let a module return logits[:, 1:]."
            way *= counts[-1] == counts[0] + 1
            raise ValueError(f"The modules have different numbers of classes: {counts}.{way}")
        names = None if class_names is None else [*map(str, np.ravel(class_names))]
        if names is not None and not len(names) == len({*names}) == counts[0]:
            text = f"class_names={str(class_names)[:200]} must be {counts[0]} different names"
            raise ValueError(f"{text}, in the order of the modules' logits.")
        pixels = levels.permute(0, 2, 3, 1).cpu().numpy()
        data = LabelledImages(pixels, _whole("labels", labels, len(levels)), target_labels=classes)
        self.images = ImageDataset(data, num_classes=counts[0], numbers=numbers, class_names=names)
        self.fit_images = None
        if fit_images is not None:
            if not isinstance(fit_images, tuple | list) or not 1 <= len(fit_images) <= 3:
                raise ValueError("fit_images must be (images, labels) or with target_labels, too.")
            levels, fit_labels = read_images("fit_images", *fit_images[:2])
            pixels = levels.permute(0, 2, 3, 1).cpu().numpy()
            stated = (fit_labels, *fit_images[2:])
            columns = [_whole("fit_images", values, len(levels)) for values in stated]
            data = LabelledImages(pixels, columns[0], None, *columns[1:])
            self.fit_images = ImageDataset(data, num_classes=counts[0])

    @property
    def trainer(self) -> dict[str, Any]:
        """The trainer settings for the modules' device."""
        kind = "gpu" if is_cuda(self.device) else self.device.type
        return {"accelerator": kind, "devices": [self.device.index or 0] if kind == "gpu" else 1}

    def settings(self, source: str) -> dict[str, Any]:
        """Return the settings that describe a source and the targets."""
        members = ModelRef.parse(source, NO_DEFENCE).members
        names = dict.fromkeys((*members, *self.targets))
        model = {
            name: {
                "network": described(self.networks[name].network),
                "weights": "included",
                "feature_layer": getattr(self.networks[name], "feature_layer", None),
            }
            for name in names
        }
        return {"source": list(members), "targets": self.targets, "model": model}

    def make_context(self, planned: Planned) -> JobContext:
        """Return the pass that runs a planned job on the images."""
        settings, models = planned.settings, {}
        for name in settings.models:
            network = self.networks[name].network
            digest = self.networks[name].digest
            # Networks with equal weights and layers may still compute different things, so the key
            # includes the name.
            parts = {"call": planned.call, "name": name, "network": name_of(network)}
            parts |= {"layers": network_text(network), "weights": digest}
            models[name] = Model(self.networks[name], digest, parts)
        pool = mixing_pool(self.images, settings.dataset.seed)
        if planned.attack.is_fitted and self.fit_images is None:
            name = settings.attack.name
            raise ValueError(f"attack={name} is fitted on training images. Pass fit_images.")
        fitted_on = open_fit_images(planned, self.images, DataSets(), self.fit_images)
        made = with_ensemble(settings, models)
        return build_job(planned, self.images, self.device, made, pool, fitted_on)


def _modules(
    sources: Mapping[str, nn.Module | Sequence[nn.Module]],
    targets: Mapping[str, nn.Module | Sequence[nn.Module]],
) -> dict[str, nn.Module]:
    """Return all modules by name, with the members of ensembles under their own names."""
    modules: dict[str, nn.Module] = {}
    for key, mapping in (("targets", targets), ("sources", sources)):
        named = isinstance(mapping, Mapping) and all(isinstance(name, str) for name in mapping)
        if not named or not mapping:
            raise ValueError(f"{key} must be a mapping from names to torch modules.")
        for name, value in mapping.items():
            members: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
            names = ModelRef.parse(name, NO_DEFENCE).members if key == "sources" else (name,)
            if len(names) != len(members) or not all(isinstance(m, nn.Module) for m in members):
                raise ValueError(
                    f"{key}[{name!r}] must be a torch module or, for a source named like 'a+b', a "
                    "list of one module per name."
                )
            for member, module in zip(names, members, strict=True):
                if modules.setdefault(member, module) is not module:
                    raise ValueError(f"{member}: source and target differ; rename one of them.")
    return modules


def _classifier(name: str, module: nn.Module) -> PixelClassifier:
    """Return a frozen copy of a module in evaluation mode."""
    with named_errors(f"{name} cannot be copied"):
        copied = copy_network(module)
    classifier = PixelClassifier(copied, mean=(0, 0, 0), std=(1, 1, 1), name=name)
    return classifier.eval().requires_grad_(False)


def name_of(value: Any) -> str:
    """Return the module and name of a function, or of an object's class."""
    code = _code_of(value)
    return canonical_name(f"{code.__module__}.{code.__qualname__}")


def described(value: Any, key: str = "name") -> dict[str, str]:
    """Return the name of a function, module or object, as `key`, and a digest of its code's text.

    That is the text of the function, or of the classes of the object or of a module's parts.
    Classes of torch, attributes of objects, and functions that are called are left out.
    """
    parts = value.modules() if isinstance(value, nn.Module) else [value]
    codes, texts = {_code_of(part) for part in parts}, list[str]()
    for code in (code for code in codes if not str(code.__module__).startswith("torch.")):
        with suppress(Exception):  # typed in a shell, compiled, or a lambda in brackets
            texts.append(getsource(code))
    return {key: name_of(value), "code": content_key(sorted(texts))}


def _code_of(value: Any) -> Any:
    value = getattr(value, "func", value)
    return value if hasattr(value, "__qualname__") else type(value)


def _whole(key: str, values: Any, count: int) -> np.ndarray:
    """Return `values` as an array of whole numbers, one per image."""
    return check_whole(key, to_tensor(key, values).cpu().numpy(), count)


def read_images(key: str, images: Any, labels: Any = None) -> tuple[Tensor, Any]:
    """Return images as uint8 (N, 3, H, H), and their labels.

    Args:
        key: Name of the argument, for messages.
        images: Tensor or array (N, 3, H, H) or (N, H, H, 3); a sequence of Pillow images, tensors
            or arrays; or a torch `Dataset` or `DataLoader` of images or of (image, label).
        labels: Labels; None: those of the data set.

    Raises:
        ValueError: The images have another form, other values or several sizes, or there are no
            labels, or two sets of them.
    """
    if isinstance(images, Dataset | DataLoader):
        images, items = _read_items(images)
        if items and labels is not None:
            raise ValueError(f"{key} have labels of their own. Leave out labels.")
        labels = (items or None) if labels is None else labels
    if hasattr(images, "__iter__") and not isinstance(images, str | np.ndarray | Tensor):
        images = _stack(key, list(images))
    if labels is None:
        raise ValueError(f"{key} come without labels. Pass labels.")
    return _square(key, to_tensor(key, images)), labels


def to_tensor(key: str, values: Any) -> Tensor:
    """Return values as a tensor; refuse what is neither a tensor nor an array."""
    try:
        # A column of pandas is read-only.
        writable = values if isinstance(values, Tensor) else np.require(values, requirements="W")
        return torch.as_tensor(writable)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key} is neither a tensor nor an array: {first_line(error)}") from error


def _read_items(data: Dataset[Any] | DataLoader[Any]) -> tuple[list[Any], list[Any]]:
    """Return the images, and the labels if there are any, of a data set or loader."""
    items: Any = data
    if not isinstance(data, DataLoader | IterableDataset):
        items = (data[i] for i in range(len(items)))
    batched = isinstance(data, DataLoader) and data.batch_sampler is not None
    images, labels = list[Any](), list[Any]()
    for item in items:
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        images += list(image) if batched and not isinstance(image, Mapping) else [image]
        if label is not None:
            labels += list(label) if batched else [label]
    return images, labels


def _stack(key: str, images: list[Any]) -> Any:
    """Return Pillow images, arrays or tensors as one array or tensor."""
    if any(isinstance(image, Mapping | str | tuple) for image in images):
        raise ValueError(f"{key} are not images. Pass columns: data['image'], data['label'].")
    pictures = [to_rgb(image) if isinstance(image, Image.Image) else image for image in images]
    sizes = {np.shape(picture) for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"{key} have {len(sizes)} sizes. Resize them to squares of one size.")
    if any(isinstance(picture, Tensor) for picture in pictures):
        return torch.stack([torch.as_tensor(picture) for picture in pictures])
    return pictures


def _square(key: str, images: Tensor) -> Tensor:
    """Return images (N, 3, H, H) or (N, H, H, 3) as uint8 (N, 3, H, H)."""
    if images.ndim == 4 and images.shape[1] != 3 and images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not square or not len(images):
        raise ValueError(
            f"{key} must be of shape (N, 3, H, H) or (N, H, H, 3), not {tuple(images.shape)}."
        )
    return grey_levels(images)
