"""Facts about jobs: commands, data, models and versions."""

import shlex
from collections.abc import Sequence

from src.artifacts.jobs import FinishedJob
from src.artifacts.record import JobRecord
from src.report.summary import JobSummary

_SEEDS = (
    "rates and rankings are means over the seeds; pairwise comparisons, strongest attackers, "
    "diagnostics and single images show the first seed"
)


def facts(summaries: Sequence[JobSummary]) -> tuple[tuple[str, str], ...]:
    """Return (term, value) pairs that describe the jobs."""
    jobs = [job for summary in summaries for job in summary.runs]
    records = [job.record for job in jobs]
    attacked = [job for job in jobs if job.attacked]
    values = {
        "data": [_data(record) for record in records],
        "attacks": [_attack(job) for job in attacked],
        "budgets": [_budgets(job.record) for job in attacked],
        "images counted": [record.protocol for record in records],
        "ensembles": [
            f"mean of {record.config['ensemble']}"
            for record in records
            if record.source_model.is_ensemble
        ],
        "feature layers": [
            f"{record.layer} of {record.source}" for record in records if record.layer
        ],
        "seed": [str(record.seed) for record in records],
        "several seeds": [_SEEDS for summary in summaries if summary.seeds],
        "precision and device": [_arithmetic(record) for record in records],
        "finished": sorted(record.created for record in records),
        "code": [f"commit {record.commit}" for record in records],
        "versions": [
            ", ".join(f"{name} {number}" for name, number in record.versions.items())
            for record in records
        ],
    }
    terms = [("command", command) for command in commands(jobs)]
    terms += sorted({("model", line) for record in records for line in _models(record)})
    terms += [(term, "; ".join(dict.fromkeys(lines))) for term, lines in values.items()]
    return tuple((term, value) for term, value in terms if value)


def commands(jobs: Sequence[FinishedJob]) -> list[str]:
    """Return the command of every sweep, with the values of swept keys separated by commas."""
    sweeps: dict[object, list[JobRecord]] = {}
    for job in jobs:
        key = (job.record.config["sweep"], job.sweep_folder)
        sweeps.setdefault(key, []).append(job.record)
    return [_command(records) for records in sweeps.values()]


def _command(records: Sequence[JobRecord]) -> str:
    values: dict[str, list[str]] = {}
    for word in dict.fromkeys(word for record in records for word in record.overrides):
        key, _, value = word.partition("=")
        if key != "sweep":  # the program adds the id of the sweep
            values.setdefault(key, []).append(value)
    arguments = [f"{key}={','.join(choices)}" for key, choices in values.items()]
    flags = [word for flag in records[0].flags for word in flag.split(" ", 1)]
    return shlex.join(
        ["python", "-m", "src.main", *["-m"] * (len(records) > 1), *flags, *arguments]
    )


def _data(record: JobRecord) -> str:
    classes = len(record.class_names)
    return f"{record.dataset}: {record.images} images, {classes} classes, digest {record.data}"


def _attack(job: FinishedJob) -> str:
    settings = [
        f"{key}={value}"
        for key, value in job.record.config["attack"]["settings"].items()
        if key not in ("name", "_target_") and value is not None
    ]
    return f"{job.record.attack} ({', '.join(settings)})" if settings else job.record.attack


def _budgets(record: JobRecord) -> str:
    grid = ", ".join(f"{eps:g}" for eps in record.budgets)
    return f"{grid} (in 1/255, {record.norm}); reference budget {record.reference:g}/255"


def _arithmetic(record: JobRecord) -> str:
    batches = f"batches of {record.config['trainer']['batch_size']}"
    return f"{record.arithmetic}, {batches}, on {record.device}"


def _models(record: JobRecord) -> list[str]:
    lines = []
    for name, settings in record.config["model"].items():
        network = settings["network"]
        built = network.get("model_name") or network.get("name") or network.get("_target_")
        weights = settings.get("weights") or "trained here"
        digest = record.weights.get(name, "unknown")
        lines.append(f"{name}: {built}; weights {weights}, digest {digest}")
    return lines


def images_of(jobs: Sequence[FinishedJob]) -> str:
    """Return the number of images of the jobs in words."""
    counts = sorted({job.record.images for job in jobs})
    return f"{' or '.join(map(str, counts))} image{'s' * (counts != [1])}"
