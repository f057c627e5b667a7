"""Published runs: a sweep and its report, a job and its files, the curves of its pairs."""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pandas as pd

from ..analysis import TRANSFER, WHITE_BOX
from ..analysis.estimates import MEAN
from ..analysis.quantities import QUANTITIES
from ..analysis.ranking import GROUP, MEAN_OF
from ..artifacts.layout import MANIFEST, PAGE, files_of_sweep, folder_of_command
from ..artifacts.record import JobRecord, files_of_job
from ..artifacts.sweep_state import CONFIG_OF_JOB
from ..cache.code_digest import code_of
from ..cache.keys import content_key
from ..config.sections import job_name
from ..config.settings import Settings
from ..data import ImageDataset
from ..report.results import JobResults, Results
from ..report.sanity_checks import explained
from ..tracking import STARTED, Point, Tracker
from ..utils.model_names import NO_DEFENCE, TARGET_COLUMNS, ModelRef
from ..utils.package import FOLDER

_MANY = 100  # runs; MLflow's charts take ten at a time


def publish_sweep(
    tracker: Tracker,
    sweep: str,
    jobs: Sequence[Settings],
    results: Results,
    folder: Path,
    command: str,
    note: str,
    error: str,
) -> None:
    """Publish a sweep whose files are in a folder; `error` says why it has failed."""
    crafted = [job for job in jobs if job.attack.kind == "crafted"]  # saved sets have their own
    values: dict[str, list[str]] = {
        "dataset": [job.dataset.name for job in jobs],
        "sources": [job.source_name for job in jobs],
        "targets": [name for job in jobs for name in job.targets],
        "attacks": [job.attack.label for job in jobs],
        "budgets_255": [f"{budget:g}" for job in crafted for budget in job.budgets],
        "reference_eps_255": [f"{job.reference:g}" for job in crafted],
        "protocol": [job.protocol or "" for job in jobs],
        "n_images": [str(job.n_images or "all") for job in jobs],
        "seed": [str(job.seed) for job in jobs],
    }
    listed = {name: ", ".join(filter(None, dict.fromkeys(all_))) for name, all_ in values.items()}
    listed = {"command": command, "jobs": str(len(jobs)), **listed}
    pairs = sum(len(job.record.evaluated) for job in results.jobs if job.attacked)
    if pairs > _MANY and (folder / PAGE).exists():
        page = (folder / PAGE).absolute().as_uri()
        note = f"{pairs} pairs are too many for MLflow's charts. Compare them at {page}.\n\n{note}"
    tags = {"folder": str(folder.absolute()), "note": note, "error": error}
    tags["signature"] = results.signature
    tags = {name: text for name, text in tags.items() if text} | sweep_tags(sweep)
    tags |= _start(folder / MANIFEST)
    parameters = {name: text for name, text in listed.items() if text}
    name, points = jobs[0].tracking.name or folder.name, sweep_points(results)
    tags["run_key"] = content_key(["sweep", sweep])
    tracker.publish("sweep", name, parameters, points, tags, files_of_sweep(folder))


def sweep_tags(sweep: str) -> dict[str, str]:
    """Return the tags of a run that belongs to a sweep; a store keeps the first `sweep`."""
    return {"sweep": sweep, f"sweep.{sweep}": "true"}


def publish_failure(tracker: Tracker, sweep: str, job: Settings, error: str) -> None:
    """Publish a job that has failed."""
    content = job.model_dump(mode="json", exclude={"tracking", "sweep"})
    tags = {"error": error, "run_key": content_key(["failed job", content, error])}
    parameters = _parameters(job.source_name, job.attack.label, job.targets, job.budgets, job.seed)
    tracker.publish("job", job.job, parameters, [], tags | sweep_tags(sweep))


def _start(file: Path) -> dict[str, str]:
    """Return the tag of a run's start, in ms: when a file of its beginning was written."""
    return {STARTED: f"{1000 * file.stat().st_mtime:.0f}"} if file.exists() else {}


def _parameters(
    source: str, attack: str, targets: Sequence[str], budgets: Sequence[float], seed: int
) -> dict[str, str | int]:
    """Return the parameters of a job's run, with budgets in units of 1/255."""
    budget, target = ", ".join(f"{budget:g}" for budget in budgets), ", ".join(targets)
    names = {"source": source, "attack": attack, "targets": target, "budgets_255": budget}
    return {**names, "seed": seed}


def publish_job(tracker: Tracker, results: Results) -> None:
    """Publish a finished job: its metrics and files, and its pairs."""
    ((result,),) = results.rows
    record = result.job.record
    place = (record.source_model.model, record.label, record.targets, record.budgets[1:])
    chosen = record.protocol, record.reference, record.storage
    analysis = sorted(code_of(str(FOLDER / "analysis")).values())
    key = content_key([record.key, *chosen, analysis])
    shared = data_tags(record.config, record.data, record.images, len(record.class_names))
    shared |= {"signature": results.signature} if record.attack else {}
    shared |= sweep_tags(record.config["sweep"]) | _start(result.job.folder / CONFIG_OF_JOB)
    tags, metrics = {"run_key": key}, dict[str, float]()
    if record.attack:
        for alarm in result.alarms:
            alarms = tags.get(f"alarm.{alarm.name}")
            tags[f"alarm.{alarm.name}"] = "\n".join(filter(None, [alarms, explained(alarm)]))
        tags["crafting"] = record.crafting
        metrics = {
            **result.cost,
            "gradients_taken": record.gradients,
            "zero_gradients": math.nan if record.zero_gradients is None else record.zero_gradients,
            "images_per_second": record.images / (record.seconds or math.nan),
            "alarms": len(result.alarms),
            "n": record.images,
        }
    points = [(name, value, 0) for name, value in metrics.items() if not math.isnan(value)]
    files, parameters = files_of_job(result.job.folder), _parameters(*place, record.seed)
    parameters["reference_eps_255"] = f"{record.reference:g}"
    name = _run_name(job_name(record.label, record.source), record)
    tracker.publish("job", name, parameters, points, shared | tags, files)
    if record.attack:
        rates = result.rates[result.rates["variant"] == record.storage]
        rates = rates[rates["protocol"] == record.protocol]
        for names, rows in rates.groupby([*TARGET_COLUMNS], sort=False):
            pair = _pair(result, ModelRef.parse(*names), rows, {**shared, "job": key})
            tracker.publish("pair", *pair)


def publish_training(
    tracker: Tracker, settings: Settings, name: str, images: ImageDataset, file: Path, digest: str
) -> None:
    """Publish the training of a model from its files: the weights, and the metrics beside them."""
    recipe = settings.training
    adversarial = set() if recipe.attack else {"attack", "eps", "steps", "clean_share"}
    parameters = recipe.model_dump(exclude=adversarial)
    parameters |= {"images": len(images), "checkpoint": file.name}
    tags = {"model": name, "dataset": settings.dataset.name, "seed": str(recipe.seed)}
    tags |= {"weights": digest, "run_key": content_key([file.name, digest])}
    config = settings.model_dump(include={"dataset", "attack"})
    tags |= data_tags(config, images.digest(), len(images), images.num_classes)
    points = list[Point]()
    with suppress(OSError, ValueError, TypeError):  # no damaged file stops the job
        rows = pd.read_csv(file.with_suffix(".csv")).itertuples(index=False, name=None)
        points = [(str(metric), float(value), int(step)) for metric, value, step in rows]
    tags |= sweep_tags(settings.sweep or "")
    tracker.publish("training", f"train {name}", parameters, points, tags, [file])


def data_tags(config: Mapping[str, Any], digest: str, images: int, classes: int) -> dict[str, str]:
    """Return the tags of a data set: digest, number of images and classes, and path if it exists.

    `config` has the sections `dataset` and `attack` of a job's settings.
    """
    dataset, attack = config["dataset"], config["attack"]
    path = dataset.get("root") or dataset.get("file") or attack.get("path")
    tags = {"data_digest": digest, "data_images": str(images), "data_classes": str(classes)}
    if path and Path(path).expanduser().exists():
        tags["data_path"] = str(Path(path).expanduser().absolute())
    return tags


def _pair(
    result: JobResults, pair: ModelRef, rows: pd.DataFrame, shared: Mapping[str, str]
) -> tuple[str, dict[str, Any], list[Point], dict[str, str]]:
    """Return the run of one pair of source and target, from its rates for the primary variant."""
    record = result.job.record
    attack = record.config["attack"]
    points, intervals = pair_points(rows, record.reference)
    radius = record.reference / 255 * math.sqrt(record.values) * (record.norm == "l2")
    single = {"seconds": record.seconds or 0.0, f"l2_radius/{_at(record.reference)}": radius}
    points += [(name, value, 0) for name, value in result.cost.items() if value == value]
    points += [(name, value, 0) for name, value in single.items() if value]
    arithmetic = ("attack_precision", "batch_size", "fold_batch_norms")
    parameters = {
        **{f"attack.{key}": value for key, value in attack["settings"].items()},
        **({"ensemble": record.config["ensemble"]} if record.source_model.is_ensemble else {}),
        **{key: record.config["trainer"][key] for key in arithmetic},
        "attack": record.label,
        "norm": record.norm,
        "source": record.source,
        **dict(zip(TARGET_COLUMNS, pair.columns, strict=True)),
        "dataset": record.dataset,
        "n_images": record.images,
        "seed": record.seed,
        "reference_eps_255": f"{record.reference:g}",
        "denominator": int(rows["denominator"].iloc[0]),
    }
    repeated = ("attack", "attack_precision", "source", "target", "defence", "dataset", "seed")
    tags = {
        **{name: str(parameters[name]) for name in repeated},
        "job_key": record.key,
        "target_label": attack["target_label"] or "none",
        "precision": record.config["trainer"]["precision"],
        "protocol": record.protocol,
        "storage": record.storage,
        "source_weights": record.weights.get(record.source_model.model, "unknown"),
        "target_weights": record.weights[pair.model],
        "white_box": str((rows["relation"] == WHITE_BOX).all()).lower(),
        "git_commit": record.program.removeprefix("commit "),
        **shared,
        **intervals,
        "run_key": content_key([shared["job"], *pair.columns]),
    }
    if record.config["report"]["name"] != "none":
        names = {name: parameters[name] for name in ("attack", "source", *TARGET_COLUMNS)}
        page = (folder_of_command(result.job.folder) / PAGE).absolute().as_uri()
        tags["note"] = f"This pair in the report: `{page}#{urlencode(names, quote_via=quote)}`"
    at = f"at {record.reference:g}/255"
    name = _run_name(f"{job_name(record.label, record.source)} -> {pair} {at}", record)
    return name, parameters, points, tags


def _run_name(name: str, record: JobRecord) -> str:
    """Return a run's name, with the arithmetic added unless it is float32."""
    return name if record.arithmetic == "float32" else f"{name} ({record.arithmetic})"


def _at(eps_255: float) -> str:
    """Name a budget in metrics: those of other budgets must not have the same name."""
    return f"at_{eps_255:g}"


def pair_points(rows: pd.DataFrame, reference: float) -> tuple[list[Point], dict[str, str]]:
    """Return metrics and tags of a pair, from its target's rows of `rates.csv`.

    Metrics `.../curve` and `eps_255` have whole budgets as steps, because MLflow does not accept
    fractions. Other metrics and tags (95 % intervals) are at the budget `reference`, in units of
    1/255. Unknown rates, e.g. with an empty denominator, are left out.
    """
    values = rows.set_index("eps_255").loc[reference].dropna().to_dict()
    points, intervals = list[Point](), {}
    logged = {name: entry.metric for name, entry in QUANTITIES.items() if entry.metric}
    for name, metric in logged.items():
        finite = rows[["eps_255", name]].dropna().astype(float).to_numpy()
        curve = [(f"{name}/curve", y, int(eps)) for eps, y in finite if eps.is_integer()]
        # A point at budget 0 alone is no curve.
        if metric == "curve" and any(step > 0 for *_, step in curve):
            points += curve
        if name in values:
            single = name if name == "clean_accuracy" else f"{name}/{_at(reference)}"
            points.append((single, values[name], 0))
        if f"{name}_low" in values:
            ends = (values[f"{name}_{end}"] for end in ("low", "high"))
            intervals[f"{name}_interval"] = "[{:.3f}, {:.3f}]".format(*ends)
    steps = sorted({step for name, _, step in points if name.endswith("/curve")})
    return points + [("eps_255", step, step) for step in steps], intervals


def sweep_points(results: Results) -> list[Point]:
    """Return each attack's success by whole budget above 0, and at the reference budget.

    Metrics are `transfer_success/ATTACK`, the mean over other models, `white_box_success/ATTACK`,
    the mean over white boxes, and `versus_first/ATTACK`, the difference from the first in the
    ranking over all sources (0 for the first), each with `/curve` and `/at_EPS`. There are also
    metrics for `ATTACK of ensembles`, `ATTACK through DEFENCE` (of the sources) and `ATTACK behind
    DEFENCE` (of the targets). MLflow sorts charts by name: success comes first.
    """
    if not results.attacked:
        return []
    records = {row[0].job.attack: row[0].job.record for row in results.attacked}
    points = list[Point]()

    def add(metric: str, row: Any, value: float, defence: str) -> None:
        through = f"through {defence}" * (defence != NO_DEFENCE)
        heading = " ".join(filter(None, ["of ensembles" * bool(row.ensemble), through]))
        reference, name = records[row.attack].reference, _metric(row.attack, row.defence, heading)
        if row.eps_255 % 1 == 0:  # MLflow accepts no other steps
            points.append((f"{metric}/{name}/curve", value, int(row.eps_255)))
        if row.eps_255 == reference:
            points.append((f"{metric}/{name}/{_at(reference)}", value, 0))

    row: Any
    means = results.select(source=MEAN, target=MEAN).dropna(subset="success_rate")
    for row in means[means["eps_255"] > 0].itertuples():
        metric = {TRANSFER: "transfer_success", WHITE_BOX: "white_box_success"}.get(row.relation)
        if metric and row.protocol == records[row.attack].protocol:
            add(metric, row, row.success_rate, row.source_defence)
    ranked, keys = results.rankings, ["group", "attack", "defence", *GROUP, "eps_255"]
    for _, rows in ranked.groupby(keys, sort=False):
        row, of_mean = next(rows.itertuples()), rows["source"].iloc[0].startswith(MEAN_OF)
        difference = 0 if row.rank == 1 else row.difference
        if (of_mean or len(rows) == 1) and not math.isnan(difference):
            defence = NO_DEFENCE if of_mean else ModelRef.parse(row.source).defence
            add("versus_first", row, difference, defence)
    return points


def _metric(attack: str, defence: str, heading: str) -> str:
    """Return an attack's name with its heading, in characters that MLflow accepts."""
    name = f"{attack} {heading}".strip() + f" behind {defence}" * (defence != NO_DEFENCE)
    allowed = re.sub(r"[^\w.-]+", " ", name).strip()
    if len(allowed) > 150:  # names that are cut still differ
        allowed = f"{allowed[:143]} {zlib.crc32(name.encode()):06x}"[:150]
    return allowed
