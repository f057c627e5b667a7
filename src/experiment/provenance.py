"""What a job's tables say of themselves: a record in the metadata of each parquet file.

A report needs nothing but such tables, wherever they were copied to.
"""

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

PREDICTIONS = "predictions"
"""Table of the primary variant; those of other variants and controls are `predictions-NAME`."""
ALARMS = "alarms.json"
EXAMPLES = "examples.npz"
IMAGES = "images.npz"

FORMAT = 2
_KEY = b"transferability"
_PACKAGES = (
    "transferability",
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
)


@dataclass(frozen=True)
class JobRecord:
    """What a job's tables came from.

    Attributes:
        key: Of the job: equal keys mean equal predictions.
        data: Digest of the images.
        images: How many there are.
        class_names: One a class.
        weights: Digests of the models' weights, by name.
        config: The job's settings, with the models that it names, without the tracking store.
        overrides: Words of the command line that this job got, see `public`.
        flags: What stood before them, as `--config-dir PATH`.
        created: When the job ended, UTC, as `2026-01-31T12:00:00+00:00`.
        commit: Of the code, see `git_commit`.
        versions: Of the packages that can change a number, and of Python's own.
        device: `cpu`, `cuda` or another.
    """

    key: str
    data: str
    images: int
    class_names: tuple[str, ...]
    weights: Mapping[str, str]
    config: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    created: str = ""
    commit: str = ""
    versions: Mapping[str, str] | None = None
    device: str = ""

    def complete(self, folder: Path) -> "JobRecord":
        """Return the record with the command that Hydra noted in a folder, and here and now."""
        overrides, flags = _command(folder / ".hydra")
        return replace(
            self,
            overrides=overrides,
            flags=flags,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=git_commit(),
            versions=_versions(),
        )

    @property
    def source(self) -> str:
        """Return the source's name, of an ensemble `a+b`; empty if nothing was attacked."""
        source = self.config.get("source") or ""
        return source if isinstance(source, str) else "+".join(source)

    @property
    def targets(self) -> list[str]:
        """Return the names of the models that were shown the images."""
        return list(self.config["targets"])

    @property
    def attack(self) -> str:
        """Return the attack's name; empty if nothing was attacked."""
        attack = self.config["attack"]
        return "" if attack["kind"] == "none" else str(attack["name"])

    @property
    def label(self) -> str:
        """Return the attack's name with the settings that are not its file's."""
        return str(self.config["attack"].get("label", self.attack))

    @property
    def iterative(self) -> bool:
        """Tell whether the attack takes more than one step, as far as its settings say."""
        return int(self.config["attack"].get("steps") or 1) > 1

    @property
    def norm(self) -> str:
        """Return the norm of the budgets."""
        return str(self.config["attack"].get("norm", "linf"))

    @property
    def dataset(self) -> str:
        """Return the data set's name."""
        return str(self.config["dataset"]["name"])

    @property
    def storage(self) -> str:
        """Return the storage format of the primary variant, `stored` for those of a saved set."""
        return str(self.config["storage"] or "stored")

    @property
    def seed(self) -> int:
        """Return the seed of the subset and of random attacks."""
        return int(self.config["seed"])

    @property
    def precision(self) -> str:
        """Return the precision of Lightning's trainer."""
        return str(self.config["trainer"]["precision"])

    @property
    def budgets(self) -> tuple[float, ...]:
        """Return the budgets in units of 1/255, ascending, 0 first."""
        return tuple(self.config["epsilon"]["grid"])

    @property
    def protocol(self) -> str:
        """Return which images form the denominator of the matrix."""
        return str(self.config["protocol"])

    @property
    def reference(self) -> float:
        """Return the reference budget in units of 1/255."""
        return float(self.config["epsilon"]["reference"])


def public(words: Iterable[str]) -> tuple[str, ...]:
    """Return a command's words without those of the tracking store, and without passwords.

    >>> public(["++attack.steps=2", "tracking.uri=http://me:secret@host", "set=s3://me:secret@host"])
    ('attack.steps=2', 'set=s3://...@host')
    """
    kept = [word for word in map(str, words) if not word.lstrip("+~").startswith("tracking")]
    kept = [word.removeprefix("++") if word.startswith("++attack.") else word for word in kept]
    return tuple(re.sub(r"://[^/@\s]*@", "://...@", word) for word in kept)


def with_record(table: pa.Table, name: str, record: JobRecord) -> pa.Table:
    """Return a table whose metadata say which of a job's tables it is, and what the job was."""
    text = json.dumps({"format": FORMAT, "table": name, "job": asdict(record)}, default=str)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: text.encode()})


def read_record(path: Path) -> tuple[str, JobRecord] | None:
    """Return which table a parquet file holds and the record of its job.

    Returns:
        None for a file that this program did not write.

    Raises:
        ValueError: The file cannot be read, or another version of the program wrote it.
    """
    try:
        found = (pq.read_schema(path).metadata or {}).get(_KEY)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as a parquet file: {error}.") from error
    if found is None:
        return None
    try:
        return _understood(json.loads(found))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} says of its job what no job can be: {error}") from error


def _understood(content: Any) -> tuple[str, JobRecord]:
    if content["format"] != FORMAT:
        shown = str(content["format"])[:40]
        raise ValueError(
            f"it has the format {shown} and this program reads {FORMAT}; use the version that "
            "wrote it."
        )
    job = content["job"]
    for field in ("class_names", "overrides", "flags"):
        job[field] = tuple(job.get(field, ()))
    return str(content["table"]), JobRecord(**{**job, "config": dict(job["config"])})


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the code that runs, `+changes` if it was edited; or `unknown`."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _command(noted: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words and the flags of a command, of the files that Hydra left."""
    if not (noted / "overrides.yaml").exists():
        return (), ()
    words = yaml.safe_load((noted / "overrides.yaml").read_text())
    runtime = yaml.safe_load((noted / "hydra.yaml").read_text())["hydra"]["runtime"]
    sources = runtime["config_sources"]
    own = [source["path"] for source in sources if source["provider"] == "command-line"]
    return public(words), tuple(f"--config-dir {folder}" for folder in own)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
