"""Stored jobs to a report, from the answer down."""

from collections.abc import Callable, Sequence

from src.analysis import CAUSES
from src.config.settings import ReportSettings
from src.report import sections
from src.report.definitions import DEFINITIONS
from src.report.facts import facts, missing
from src.report.measure import measure
from src.report.page import Report, Section
from src.report.stored import StoredJob


def build_report(
    jobs: Sequence[StoredJob],
    settings: ReportSettings,
    progress: Callable[[str], None] = lambda words: None,
) -> Report:
    """Turn stored jobs into a report.

    Args:
        jobs: The jobs; those without an attack tell of their clean images alone.
        settings: What the report shows.
        progress: Told what is being worked on.
    """
    found = measure(jobs, settings.pairs, settings.budgets, progress)
    progress("charts")
    attacked = [job for job in jobs if job.attacked]
    names = ", ".join(dict.fromkeys(job.record.dataset for job in jobs))
    what = "Transfer of adversarial examples" if attacked else "Clean images"
    answers: list[Section] = []
    sentence = sections.clean_sentence(found)
    if attacked:
        first = attacked[0].record  # its reference budget and protocol are shown first
        sentence = sections.answer_sentence(first, found)
        answers = [sections.answer(first, found)]
    parts = (
        *answers,
        sections.hypothesis(found),
        sections.images(found),
        sections.compared(found),
        sections.mechanisms(found),
        *sections.clean(found),
    )
    lacking = missing(attacked, settings.pairs)
    return Report(
        title=f"{what}: {names}",
        answer=sentence,
        alarms=tuple(
            (f"{name}: {finding}", CAUSES.get(name, "")) for name, finding in found.alarms
        ),
        sections=tuple(part for part in parts if part is not None),
        terms=(
            ("What was run", facts(jobs)),
            *((("What was not computed", lacking),) if lacking else ()),
            ("Definitions", DEFINITIONS),
        ),
    )
