"""The content of the report, from the ranking to the definitions."""

from src.analysis import CAUSES
from src.analysis.quantities import definitions
from src.config.sections import ReportSettings
from src.report.page.facts import commands, facts
from src.report.page.html import Answer, Report, Section
from src.report.page.page_data import compute_page_data
from src.report.page.view import make_view
from src.report.sections.clean import clean, clean_sentence
from src.report.sections.comparisons import compared
from src.report.sections.mechanisms import mechanisms
from src.report.sections.single_images import hypothesis
from src.report.sections.source_choice import unseen_target
from src.report.sections.strongest_attacker import attackers
from src.report.sections.transfer import answer, answers, variants
from src.report.summary import Summary


def build_report(summary: Summary, settings: ReportSettings | None = None) -> Report:
    """Build the report of a summary; without an attack it only describes the clean images."""
    numbers = compute_page_data(summary, settings)
    jobs = [job_summary.job for job_summary in summary.jobs]
    attacked = [job for job in jobs if job.attacked]
    names = ", ".join(dict.fromkeys(job.record.dataset for job in jobs))
    alarms = tuple((f"{name}: {finding}", CAUSES.get(name, "")) for name, finding in numbers.alarms)
    terms = (("What was run", facts(summary.jobs)), ("Definitions", tuple(definitions().items())))
    if not attacked:
        title, parts = f"Clean images: {names}", clean(numbers)
        return Report(title, {0.0: Answer("", clean_sentence(numbers))}, alarms, parts, terms=terms)
    view = make_view(summary)
    runs = [job for job_summary in summary.attacked for job in job_summary.runs]
    command = "\n".join(f"{line} diagnostics=full" for line in commands(runs))
    sections: tuple[Section | None, ...] = (
        answer(view, numbers),
        Section("images", "Images of the chosen pair"),
        attackers(view, numbers),
        hypothesis(view, numbers),
        unseen_target(numbers),
        compared(view, numbers),
        mechanisms(view, numbers, command),
        variants(view, numbers),
        *clean(numbers),
    )
    return Report(
        title=f"Transfer of adversarial examples: {names}",
        answers=answers(view, numbers),
        alarms=alarms,
        sections=tuple(part for part in sections if part is not None),
        menus=view.menus,
        choice=view.choice,
        pairs=view.pairs,
        pictures=numbers.pictures,
        terms=terms,
    )
