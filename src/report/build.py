"""Report content, from the strongest source down to the definitions."""

from src.analysis import CAUSES
from src.analysis.summary import Summary
from src.config.settings import ReportSettings
from src.report.definitions import DEFINITIONS
from src.report.facts import facts
from src.report.measure import measure
from src.report.page import Report, Section
from src.report.sections.answer import answer, answer_sentence
from src.report.sections.clean import clean, clean_sentence
from src.report.sections.compared import compared
from src.report.sections.mechanisms import mechanisms
from src.report.sections.single_images import hypothesis, images


def build_report(summary: Summary, settings: ReportSettings) -> Report:
    """Turn a summary into a report; of jobs without an attack it holds clean images alone."""
    found = measure(summary, settings.pairs)
    jobs = [one.job for one in summary.jobs]
    attacked = [job for job in jobs if job.attacked]
    names = ", ".join(dict.fromkeys(job.record.dataset for job in jobs))
    what = "Transfer of adversarial examples" if attacked else "Clean images"
    first = attacked[0].record if attacked else None  # decides the initial choices
    parts: tuple[Section | None, ...] = (
        answer(first, found) if first else None,
        hypothesis(found),
        images(found),
        compared(found),
        mechanisms(found),
        *clean(found),
    )
    return Report(
        title=f"{what}: {names}",
        answer=answer_sentence(first, found) if first else clean_sentence(found),
        alarms=tuple(
            (f"{name}: {finding}", CAUSES.get(name, "")) for name, finding in found.alarms
        ),
        sections=tuple(part for part in parts if part is not None),
        terms=(
            ("What was run", facts(jobs)),
            ("Definitions", DEFINITIONS),
        ),
    )
