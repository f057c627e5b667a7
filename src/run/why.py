"""Why the rows of a finished job are not reused: what has changed since, by name."""

import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter

from ..artifacts.layout import MANIFEST, PREDICTIONS, folder_of_command
from ..artifacts.record import JobRecord, read_record
from ..artifacts.sweep_state import job_folders, read_manifest
from ..cache.rows import Rows
from ..config.compose import compose_words
from ..config.read import read_job
from ..config.resolvers import CONF
from ..config.settings import Settings
from ..tracking import UNTRACKED
from ..utils.package import command, values_in
from ..utils.refusals import first_line
from .check_job import check_job
from .models import ModelPool
from .results import ask_for
from .stages import JobContext

OVERRIDES = Path(".hydra") / "overrides.yaml"


def compare_jobs(
    folder: Path, words: Sequence[str] = (), config_dir: Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each finished job in a folder, with a line per difference and a conclusion.

    Args:
        folder: Folder of a job or of a sweep.
        words: Further overrides of the jobs' commands, and those of them that name code.
        config_dir: Folder with config files, as for `--config-dir`.

    Raises:
        ValueError: A job cannot be compared.
    """
    folders = [folder]
    if (folder / MANIFEST).exists():
        folders = list(job_folders(folder, read_manifest(folder)).values())
    finished = [job for job in folders if (job / f"{PREDICTIONS}.parquet").exists()]
    if not finished:
        raise ValueError(f"{folder} has no finished job. Name the folder of a job or a sweep.")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    pool = ModelPool(download=False)
    for job in finished:
        yield job, _compare(job, words, config_dir, pool)


def _compare(
    folder: Path, words: Sequence[str], config_dir: Path | None, pool: ModelPool
) -> list[str]:
    name_and_record = read_record(folder / f"{PREDICTIONS}.parquet")
    if name_and_record is None or not (before := name_and_record[1].key_parts):
        raise ValueError(f"{folder} is from an earlier version, whose rows are not reused.")
    record = name_and_record[1]
    settings = _read_settings(folder, record, words, config_dir)
    job, _ = pool.prepare(check_job(settings, pool.sets))
    now = job.key_parts
    lines = [
        f"{name}: {before.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    return [*lines, _conclude(record, job)]


def _read_settings(
    folder: Path, record: JobRecord, words: Sequence[str], config_dir: Path | None
) -> Settings:
    """Return the settings that a job's command has now.

    Code that the command names is imported only if the user has typed its name, because the folder
    may be someone else's.
    """
    try:
        content = yaml.load((folder / OVERRIDES).read_bytes(), yaml.CSafeLoader)
        overrides = TypeAdapter(list[str]).validate_python(content)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder / OVERRIDES} is missing or damaged.") from error
    typed = {word.lstrip("+") for word in words}
    untyped = [word for word in overrides if word.lstrip("+") not in typed]
    needed = [word for word in untyped if _names_code(word)]
    needed += record.flags if config_dir is None else ()
    if needed:
        raise ValueError(
            f"{folder}: its command names code. If you trust it, type: {command('status')} why "
            f"{shlex.quote(str(folder))} {_quoted(needed)}"
        )
    mode = ["hydra.mode=MULTIRUN"] if folder_of_command(folder) != folder else []
    config = compose_words(CONF, [*mode, *untyped, *words], config_dir)
    _check_code(folder, config, words, [CONF] if config_dir is None else [CONF, config_dir])
    return read_job(config, config.hydra)


def _check_code(
    folder: Path, config: DictConfig, words: Sequence[str], folders: Sequence[Path]
) -> None:
    """Refuse a composed job that names code beyond that of config folders and typed words.

    Overrides can also name code by an interpolation or by the path of a config file, so that only
    the composed job shows all of it.
    """
    files = [file for place in folders for file in Path(place).rglob("*.yaml")]
    texts = [*words, *(file.read_text(encoding="utf-8") for file in files)]
    known = {name for text in texts for name in re.findall(r"[\w.]+", text)}
    own = config.copy()
    with open_dict(own):
        own.pop("hydra")
    try:
        job: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{folder}: its command cannot be read: {first_line(error)}") from error
    named = [name for name in _code_in(job) if name not in known]
    root = (job.get("attack") or {}).get("root")  # of a clone whose modules are imported
    named += [root] if root and not any(root in word for word in words) else []
    if named:
        raise ValueError(
            f"{folder}: its command names code: {', '.join(named)}. If you trust it, type the "
            "override with its name after the folder."
        )


def _code_in(section: Any) -> Iterator[str]:
    """Yield the names of code in a section, recursively."""
    for value in values_in(section):
        if isinstance(value, dict):
            target = str(value.get("_target_") or "")
            yield from [target] if target else []
            yield from [str(value.get("path"))] if target.startswith("hydra.") else []


def _names_code(word: str) -> bool:
    """Return True if an override may name code to import."""
    names = "_target_" in word or word.lstrip("+~").startswith(("attack.root", "hydra"))
    return names and word != UNTRACKED


def _quoted(words: Sequence[str]) -> str:
    flag = "--config-dir "
    return " ".join(
        f"{flag}{shlex.quote(word.removeprefix(flag))}"
        if word.startswith(flag)
        else shlex.quote(word)
        for word in words
    )


def _conclude(record: JobRecord, job: JobContext) -> str:
    """Return a sentence about the rows that the job's command would reuse."""
    cache = Rows(Path(job.settings.cache.dir))
    before, now = record.key_parts, job.key_parts
    changed = [name for name, key in job.target_keys.items() if record.target_keys.get(name) != key]
    origins = {job.place(request)[0] for request in ask_for(job, None)}
    origins |= {job.attack_key} if job.settings.budgets else set()
    if job.settings.rerun:
        return "rerun=true computes all rows again."
    if any(before.get(name) != now[name] for name in job.common_parts):
        return "No row is reused."
    if job.attack_key != record.crafting:
        return (
            "Rows with an attack are computed again. Clean predictions of equal models are reused."
        )
    if changed:
        return f"Rows of {', '.join(changed)} are computed again. Other rows are reused."
    if not all((cache.folder / origin).is_dir() for origin in origins):
        return (
            f"{cache.folder} lacks rows of this job, which are computed again. They were deleted, "
            "or the job had another cache.dir."
        )
    if before["images"] != now["images"]:
        return "Rows of equal images are reused."
    if job.settings.diagnostics.tables or job.settings.measurements:
        return "All predictions are reused. The tables of diagnostics are not compared."
    return "All rows are reused: nothing that decides them has changed."
