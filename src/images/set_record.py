"""Record of a set of adversarial images: its facts, and the files that it lists."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ..artifacts.layout import RECORD
from ..artifacts.record import parse_record
from ..config.fields import Budget, ModelName, Name
from ..config.sections import TargetLabelRule
from ..utils.about import Norm
from ..utils.files import sha256_of
from ..utils.refusals import first_line

_Digest = Annotated[str, Field(pattern=r"^\w{1,64}$")]


def _ascending(budgets: tuple[float, ...]) -> tuple[float, ...]:
    if budgets[0] != 0 or list(budgets) != sorted({*budgets}):
        raise ValueError("the budgets must ascend from 0")
    return budgets


class SetFacts(BaseModel):
    """Facts about a set. Nothing else in its record is read, because a stranger may have sent it.

    In particular the settings of its attack, which name code, are ignored.

    Attributes:
        attack: Name of the attack; `label` is its name with settings.
        members: Models that the images were crafted on; several are an ensemble.
        defence: Defence that the source was attacked behind.
        budgets: Budgets in units of 1/255, ascending, 0 first.
        images: Number of images.
        weights: Digests of models' weights by name.
        data: Digest of the clean images.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)
    attack: Name
    label: Annotated[str, Field(min_length=1, max_length=1000)]
    norm: Norm
    target_label: TargetLabelRule | None
    source: str
    members: tuple[ModelName, ...]
    defence: Name
    ensemble: Literal["logits", "probabilities", "loss"]
    dataset: Name
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    budgets: Annotated[tuple[Budget, ...], Field(min_length=2), AfterValidator(_ascending)]
    images: PositiveInt
    weights: dict[str, _Digest]
    data: _Digest


def read_set_record(folder: Path) -> SetFacts:
    """Read the record of a set, and check that its folder holds exactly the files it lists.

    Raises:
        ValueError: The record is invalid, or a file is missing, changed, or not listed.
    """
    path = folder / RECORD
    text = path.read_bytes()
    _, record = parse_record(text, path)
    try:
        facts = SetFacts(
            **record.model_dump(include={*SetFacts.model_fields}),
            target_label=record.config["attack"]["target_label"],
            ensemble=record.config["ensemble"],
            members=record.source_model.members,
            defence=record.source_model.defence,
        )
    except (ValidationError, LookupError, TypeError) as error:
        raise ValueError(f"{path} has no valid record of a set: {first_line(error)}") from error
    if missing := [name for name in facts.members if name not in facts.weights]:
        raise ValueError(f"{path} states no weights of {missing[0]}, which the images are from.")
    _check_files(folder, facts, json.loads(text).get("files"))
    return facts


def _check_files(folder: Path, facts: SetFacts, digests: Any) -> None:
    """Refuse a folder whose files differ from the digests that its record lists by name."""
    if not isinstance(digests, dict) or len(digests) != 1 + facts.images * len(facts.budgets):
        raise ValueError(f"{folder / RECORD} lacks files of its set; save the set again.")
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ValueError(f"{folder / name} is missing or was changed; save the set again.")
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = {path.relative_to(folder).as_posix() for path in paths}
    for name in sorted(names ^ {RECORD, *digests}):
        raise ValueError(f"{folder / name} is not a file of the set in {RECORD}. Remove it.")
