"""Provenance record of a job, stored in its saved set and the metadata of its parquet files.

A report needs only these tables, wherever they are copied to.
"""

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from ..config.attack_settings import AttackSettings
from ..config.settings import Settings
from ..utils.files import ReadError, reading, writing
from ..utils.model_names import ModelRef, behind_each
from ..utils.package import INSTALLED
from ..utils.refusals import printable_all
from .layout import OF_JOB, PREDICTIONS, clear_summary

FORMAT = 6
_KEY = b"transferability"
_PACKAGES = (
    *(INSTALLED, "torch", "torchvision", "timm", "pytorch-lightning"),
    *("numpy", "pandas", "scipy"),
)


class _Keys(BaseModel):
    """Section of a recorded config: the keys that are read again, and others."""

    model_config = ConfigDict(extra="allow")


class _Attack(_Keys):
    kind: str = "crafted"
    target_label: str | None = None
    settings: dict[str, Any] = {}


class _Model(_Keys):
    network: dict[str, Any] = {}


class _Trainer(_Keys):
    precision: str = "32-true"
    attack_precision: str = "32-true"
    batch_size: int | str = "auto"
    fold_batch_norms: bool = True


class _Config(_Keys):
    attack: _Attack = _Attack()
    dataset: dict[str, Any] = {}
    defence: dict[str, dict[str, Any]] = {}
    ensemble: str = "logits"
    measurements: dict[str, dict[str, Any]] = {}
    model: dict[str, _Model] = {}
    source: list[str] = []
    sweep: str | None = None
    trainer: _Trainer = _Trainer()


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded config with the keys that are read again."""
    return _Config.model_validate(config).model_dump()


class JobRecord(BaseModel):
    """Provenance of a job's tables.

    Attributes:
        key: Equal keys mean equal predictions.
        key_parts: Digests of what else decides the job's rows: layers of the models, a saved set,
            and the images and passes of a fit.
        crafting: Key of the attack, independent of images, budgets and targets; see
            `JobContext.attack_key`.
        target_keys: Keys of everything that decides each target's logits, by name; with a defence
            `resnet50@jpeg`.
        gradients: Number of gradients computed; stored rows need none.
        fit_gradients: Number of gradients of the attack's fits, a third for a pass without
            gradient; 0 without a fit, None if unknown.
        zero_gradients: Share of the attack's gradients that were zero in every pixel; None without
            gradients.
        seconds: Duration of the pass over the images; None if some rows were stored.
        code: Digests of the code of this program, the attack and each model, by name.
        data: Digest of the images; `images` is their number.
        values: Numbers per image, three per pixel.
        weights: Digests of the models' weights, by name.
        nondeterministic: Kernels of a GPU that were used and may compute other digits in each run.
        source: `a+b` for an ensemble, `a@jpeg` behind a defence, empty without an attack.
        layer: Layer of the source that the attack reads; empty: only the logits.
        defences: Defences that each target was evaluated behind, in addition to none.
        attack: The attack's name; empty if nothing was attacked.
        label: The attack's name plus the settings that differ from its function's defaults.
        budgets: Budgets in units of 1/255, ascending, 0 first.
        storage: Format of the primary variant; `stored` for a saved set.
        config: The job's settings without the tracking store.
        overrides: The job's overrides from the command line, see `public`.
        flags: Flags of the command line, such as `--config-dir PATH`.
        created: End of the job in UTC, as `2026-01-31T12:00:00+00:00`.
    """

    model_config = ConfigDict(frozen=True)
    key: str
    key_parts: dict[str, str] = {}
    crafting: str
    target_keys: dict[str, str]
    gradients: NonNegativeInt
    fit_gradients: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.0
    zero_gradients: float | None
    seconds: float | None
    code: dict[str, str]
    data: str
    images: int
    values: int
    class_names: tuple[str, ...]
    weights: dict[str, str]
    device: str
    nondeterministic: tuple[str, ...] = ()
    source: str
    layer: str
    targets: list[str]
    defences: tuple[str, ...]
    attack: str
    label: str
    norm: str
    budgets: tuple[float, ...]
    reference: float
    protocol: str
    storage: str
    dataset: str
    seed: int
    config: Annotated[dict[str, Any], AfterValidator(_complete)]
    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    created: str
    commit: str
    versions: dict[str, str]

    @property
    def source_model(self) -> ModelRef:
        """The source with its defence."""
        return ModelRef.parse(self.source)

    @property
    def evaluated(self) -> tuple[ModelRef, ...]:
        """Targets as they are, then each behind every defence."""
        return behind_each(self.targets, self.defences)

    @property
    def arithmetic(self) -> str:
        """Number formats as text: `float32`, or the formats that differ from it."""
        formats, trainer = {"tf32": "TF32", "bf16": "bfloat16"}, self.config["trainer"]
        precision, gradients = trainer["precision"], trainer["attack_precision"]
        other = [formats.get(precision, precision)] * (precision != "32-true")
        if self.config["attack"]["kind"] == "crafted" and gradients in formats:
            other.append(f"gradients in {formats[gradients]}")
        return ", ".join(other) or "float32"

    @property
    def program(self) -> str:
        """The program as text: its commit, or if that is unknown `version 0.5.0`."""
        is_committed, number = self.commit != "unknown", self.versions.get(INSTALLED, "unknown")
        return f"commit {self.commit}" if is_committed else f"version {number}"

    def shows(self, word: str) -> bool:
        """Return True if an override is visible in the attack's label or the source's name."""
        names = ("attack", "source", "source_defence")
        return word.partition("=")[0] in names or word.removeprefix("attack.") in self.label


def record_of(settings: Settings, folder: Path | None, **results: Any) -> JobRecord:
    """Return the record of a job that ends now; `results` are fields that settings do not have."""
    attack = settings.attack
    overrides, flags = _command(folder / ".hydra") if folder else ((), ())
    return JobRecord(
        source=settings.attacked if settings.source_name else "",
        layer="+".join(layer or "" for layer in settings.layers),
        targets=list(settings.targets),
        defences=settings.defences,
        attack="" if attack.kind == "none" else attack.name,
        label=attack.label,
        norm=attack.norm,
        budgets=(0.0, *settings.budgets),
        reference=settings.reference,
        protocol=str(settings.protocol),
        storage=settings.storage or ("float32" if attack.kind == "none" else "stored"),
        dataset=settings.dataset.name,
        seed=settings.seed,
        config=settings.model_dump(mode="json", exclude={"tracking"}),  # may hold a password
        overrides=overrides,
        flags=flags,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=git_commit(),
        versions=_versions(attack),
        **results,
    )


def public(overrides: Iterable[str]) -> tuple[str, ...]:
    """Return overrides without tracking store and passwords.

    >>> public(["attack.steps=2", "tracking=none", "set=s3://me:se/cret@host"])
    ('attack.steps=2', 'set=s3://...@host')
    """
    words = (word for word in map(str, overrides) if not word.lstrip("+~").startswith("tracking"))
    return tuple(re.sub(r"://[^/@\s]*(:[^@\s]*)?@", "://...@", word) for word in words)


def with_record(table: pa.Table, name: str, record: JobRecord) -> pa.Table:
    """Return a table with its name and the job's record in the metadata."""
    text = json.dumps(sealed(name, record))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: text.encode()})


def sealed(name: str, record: JobRecord) -> dict[str, Any]:
    """Return a job's record as JSON data, with a digest and the name of what it describes."""
    job = record.model_dump(mode="json")
    return {"format": FORMAT, "table": name, "job": job, "digest": _digest(job)}


def _digest(job: dict[str, Any]) -> str:
    """Return a digest of a record; a parquet file's checksums do not cover its metadata."""
    return hashlib.sha256(json.dumps(job).encode()).hexdigest()[:16]


def files_of_job(folder: Path) -> list[Path]:
    """Return the files in a job's folder, except its set of adversarial images."""
    tables = [path for path in folder.glob("[!.]*.parquet") if _is_table(path)]
    return sorted([*tables, *(path for name in OF_JOB if (path := folder / name).exists())])


def clear(folder: Path) -> None:
    """Remove an earlier job's files from a folder, except its set of adversarial images."""
    with writing(folder):
        for file in files_of_job(folder):
            file.unlink()
        clear_summary(folder)


def _is_table(path: Path) -> bool:
    """Return True if a file is a job's table, in any version of the format."""
    try:
        return path.is_file() and _KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def job_record(folder: Path) -> JobRecord | None:
    """Return the record in a job's predictions; None if there is none in this format."""
    with suppress(ValueError):
        if name_and_record := read_record(folder / f"{PREDICTIONS}.parquet"):
            return name_and_record[1]
    return None


def read_record(path: Path) -> tuple[str, JobRecord] | None:
    """Return the table name and job record in a file; None if another program wrote the file."""
    with reading(path, "a parquet file"):
        if not path.is_file():  # reading a named pipe would block forever
            raise ValueError("it is not a regular file")
        text = (pq.read_schema(path).metadata or {}).get(_KEY)
    return None if text is None else parse_record(text, path)


def parse_record(text: bytes, path: Path) -> tuple[str, JobRecord]:
    """Return the name and the record in a text written by `sealed`, read from `path`.

    Raises:
        ValueError: The text is not a record, is damaged, or has another format.
    """
    with reading(path, "a file with a record of its job"):
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ReadError(
                f"{path} has the format {str(content['format'])[:40]}, but this program reads "
                f"{FORMAT}. Use the version that wrote it."
            )
        if content["digest"] != _digest(content["job"]):
            raise ValueError("its record is damaged")
        plain = b"\\" not in text and text.decode().isprintable()  # walking costs more
        job = content["job"] if plain else printable_all(content["job"])
        return str(content["table"]), JobRecord.model_validate(job)


@lru_cache(maxsize=2)
def git_commit(file: Path = Path(__file__)) -> str:
    """Return the commit of a file's repository, with `+changes` if edited; else `unknown`."""
    try:
        if not _git(file.parent, "ls-files", file.name):
            return "unknown"  # installed, perhaps within another repository
        arguments = ("describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*")
        return _git(file.parent, *arguments) or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """Return git's output in a folder; an empty text if git fails."""
    run = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10
    )
    return run.stdout.strip()


def _command(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a command's overrides and flags, from the files that Hydra wrote."""
    if not (folder / "overrides.yaml").exists():
        return (), ()
    overrides = yaml.safe_load((folder / "overrides.yaml").read_text())
    runtime = yaml.safe_load((folder / "hydra.yaml").read_text())["hydra"]["runtime"]
    sources = runtime["config_sources"]
    typed = [source["path"] for source in sources if source["provider"] == "command-line"]
    return public(overrides), tuple(f"--config-dir {path}" for path in typed)


def _versions(attack: AttackSettings) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    if attack.about.category == "library" and (root := attack.settings.get("root")):
        library = attack.name.partition(".")[0]  # its commit is its version
        versions[library] = git_commit(Path(root) / library / "__init__.py")
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
