"""Names of models: sources, targets and ensembles, and the list of public models."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version

from .package import command, find_asset
from .refusals import suggestion

NO_DEFENCE = "none"
"""Name that stands for no defence."""
ABSTAINED = -1
"""Predicted class if a defence abstains."""
TARGET_COLUMNS = ("target", "defence")
"""Columns of a table that name its target."""


@dataclass(frozen=True)
class ModelRef:
    """A network, or an ensemble of several, as it is or behind a defence.

    Attributes:
        members: Names of the networks; several are an ensemble.
        defence: Name of the defence; `NO_DEFENCE`: none.

    >>> str(ModelRef(("resnet50",), "jpeg")), str(ModelRef(("vgg16", "resnet50")))
    ('resnet50@jpeg', 'vgg16+resnet50')
    """

    members: tuple[str, ...]
    defence: str = NO_DEFENCE

    @classmethod
    def parse(cls, name: object, defence: object = None) -> "ModelRef":
        """Parse a name in a record or a table.

        With `defence`, which tables have in a column of its own, the name is the model's alone.

        >>> ModelRef.parse("vgg16+resnet50@jpeg")
        ModelRef(members=('vgg16', 'resnet50'), defence='jpeg')
        """
        model = str(name)
        if defence is None:
            model, _, defence = model.partition("@")
        return cls(tuple(model.split("+")), str(defence) or NO_DEFENCE)

    @classmethod
    def typed(cls, word: object) -> "ModelRef":
        """Return the network that a word of a command names; public names lose their `/`.

        >>> str(ModelRef.typed("hub/me/nets@0123456789abcdef/tiny"))
        'hub.me.nets.0123456.tiny'
        """
        return cls((re.sub(r"@([0-9a-f]{7})[0-9a-f]*", r".\1", str(word)).replace("/", "."),))

    def __str__(self) -> str:
        return self.model if self.defence == NO_DEFENCE else f"{self.model}@{self.defence}"

    @property
    def model(self) -> str:
        """Name of the model without its defence, a key of a record's weights."""
        return "+".join(self.members)

    @property
    def is_ensemble(self) -> bool:
        """True if the model has several members."""
        return len(self.members) > 1

    @property
    def is_defended(self) -> bool:
        """True if the model is behind a defence."""
        return self.defence != NO_DEFENCE

    @property
    def architecture(self) -> str:
        """Name of the model without the seed of its training, which repeated trainings end with.

        >>> ModelRef.parse("resnet_small_seed1").architecture
        'resnet_small'
        """
        return re.sub(r"_seed\d+$", "", self.model)

    @property
    def columns(self) -> tuple[str, str]:
        """Values of `TARGET_COLUMNS`: the model and its defence."""
        return self.model, self.defence

    def includes(self, other: "ModelRef") -> bool:
        """Return True if the other is this model or a member of it, behind any defence."""
        return other.members == self.members or other.model in self.members

    def behind(self, defence: str) -> "ModelRef":
        """Return the model behind another defence."""
        return replace(self, defence=defence)


def behind_each(targets: Iterable[str], defences: Iterable[str]) -> tuple[ModelRef, ...]:
    """Return the targets without a defence, then each target behind each defence."""
    models, all_defences = [*map(ModelRef.parse, targets)], dict.fromkeys((NO_DEFENCE, *defences))
    return tuple(model.behind(defence) for defence in all_defences for model in models)


def renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a name with its parts replaced: members of an ensemble, defence, words of a label.

    >>> renamed("a+b", {"b": "B"}), renamed("mi steps=5", {"mi": "MI"})
    ('a+B', 'MI steps=5')
    """
    return names.get(name) or "".join(names.get(part, part) for part in parts_of(name))


def parts_of(name: str) -> list[str]:
    """Split a name into members of an ensemble, defence and words of a label, with their signs.

    >>> parts_of("a+b@jpeg")
    ['a', '+', 'b', '@', 'jpeg']
    """
    return re.split(r"([+@ ])", name)


PROVIDERS = ("timm", "torchvision", "hub", "robustbench", "onnx")
LIST = find_asset("assets/public-models.txt")
"""File with one name per line; lines with `#` name the libraries that are listed completely."""


def check_listed(name: str) -> None:
    """Refuse a name that its provider, or the installed version of its library, does not have."""
    provider, (libraries, names) = name.partition("/")[0], _read()
    installed = version(provider).partition("+")[0] if provider in libraries else ""
    complete = provider in libraries and libraries[provider] == installed
    if provider not in PROVIDERS or (complete and name not in names):
        raise not_found(name)


def not_found(name: str, available: Sequence[str] = ()) -> ValueError:
    """Return the error for an unknown name, with similar listed or `known` names."""
    near, provider = near_models(name, available), name.partition("/")[0]
    listing = f" List all: {command('models')} {provider}" * (provider in PROVIDERS)
    return ValueError(f"{name}: no such model.{near}{listing}")


def near_models(name: str, available: Sequence[str] = ()) -> str:
    """Return a sentence with similar names of models, or with the tags to choose from."""
    names = list(dict.fromkeys([*available, *_read()[1]]))
    if tags := [other for other in names if other.startswith(f"{name}.")]:
        return f" There are {', '.join(tags[:5])}."
    stems = [other.partition(".")[0] for other in names]
    return suggestion(name, names if "." in name else [*dict.fromkeys(stems)])


@cache
def _read() -> tuple[dict[str, str], list[str]]:
    """Return the versions of the libraries that are listed completely, and the names."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    heads = [line.split() for line in lines if line.startswith("#")]
    return {head[1]: head[2] for head in heads}, lines[len(heads) :]
