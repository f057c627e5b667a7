"""Study A's table, of any models, and beside the published one where the models are the same."""

from collections.abc import Sequence

from src.analysis.study_a import PUBLISHED, published_beside, study_a
from src.report.chapters.drawing import file_name
from src.report.content import Section, Table
from src.report.stored import StoredJob
from src.report.sweep_files import by_attack, job_rates


def study_section(jobs: Sequence[StoredJob]) -> Section:
    """Return the table of every attack in the study's own format."""
    tables = []
    for attack, done in by_attack(jobs).items():
        record = done[0].record
        standard = record.standard
        protocol = "joint" if all(job.has_clean for job in done) else record.protocol
        ours = study_a({job.record.source: job_rates(job, protocol) for job in done}, standard)
        tables.append(
            Table(
                name=file_name("study-a", attack),
                title=f"{attack} on {record.dataset}, {standard:g}/255",
                caption=f"Still correct / images counted ({protocol}) = accuracy; rows: what the "
                "images were made on; columns: the model that they were shown to. Normal data: "
                "accuracy on all clean images, cut to whole per cent as the study has it.",
                frame=ours,
            )
        )
        beside = published_beside(ours)
        untargeted = record.config["attack"].get("target_label") is None
        if len(beside) and record.label == PUBLISHED.attack and untargeted:
            other = "" if record.dataset == PUBLISHED.dataset else f"; here {record.dataset}"
            tables.append(
                Table(
                    name=file_name("study-a-published", attack),
                    title=f"Published numbers beside these, {attack}",
                    caption=f"Published: {PUBLISHED.title}, FGSM on {PUBLISHED.dataset} with the "
                    f"weights of {PUBLISHED.weights}; its budget is not published{other}. Other "
                    "weights and another budget give other numbers.",
                    frame=beside,
                )
            )
    return Section(
        id="study-a",
        title="Transfer as a table of the study's format",
        text=(),
        tables=tuple(tables),
    )
