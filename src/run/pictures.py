"""The images whose pictures a job's report shows: examples, and those that predictions choose."""

from collections.abc import Sequence
from itertools import chain

from ..analysis.trajectories import by_kind, typical_images
from ..artifacts.jobs import FinishedJob
from ..measure.attack_cost import examples, most_pictures, stores_all
from ..report.results import described_images
from ..utils.processes import from_first_process
from .evaluate import Evaluation
from .stages import JobContext

ATTACKED_AGAIN = 0.05
"""Share of a job's images that are attacked again for pictures, at most."""


def choose_pictures(evaluation: Evaluation, finished: FinishedJob | None) -> list[int]:
    """Return the images to show, the first ones first; all their adversarial versions are stored.

    Named images come first, then those that the predictions choose, then the other examples. Chosen
    images that a large job does not store are attacked again, up to `ATTACKED_AGAIN`. `finished` is
    the job; None: another process has it.
    """
    job = evaluation.job
    if not job.planned.attack and not job.planned.saved:
        return []
    chosen = list[int]()
    if finished is not None and job.settings.report.examples:
        chosen = _affordable(job, _chosen(finished))
        finished.forget()
    index: Sequence[int] = from_first_process(chosen)
    if index and job.planned.attack:
        evaluation.craft(index)
    return list(dict.fromkeys([*job.settings.report.images, *index, *examples(job)]))


def _chosen(finished: FinishedJob) -> list[int]:
    """Return the images that show a job's results, the most important ones first.

    For each target: a typical fooled image at the reference budget, the clearest one of each kind,
    and a typical one at the other budgets.
    """
    record = finished.record
    pair = (record.source, record.targets)
    typical = typical_images(finished.predictions, *pair, record.protocol)
    at_reference = [index for (_, eps), index in typical.items() if eps == record.reference]
    kinds = by_kind(described_images(finished)).values()
    clearest = [rows.drop_duplicates("target")["index"] for rows in kinds]
    return list(dict.fromkeys([*at_reference, *chain(*clearest), *typical.values()]))


def _affordable(job: JobContext, chosen: Sequence[int]) -> list[int]:
    """Return the first of the chosen images: as many as are stored or may be attacked again."""
    known, most = {*examples(job)}, most_pictures(job)
    if job.planned.attack and not stores_all(job):
        # None if results would differ without the other images of a batch.
        most = min(most, int(ATTACKED_AGAIN * len(job.images)) if job.images_apart else 0)
    others = [index for index in chosen if index not in known][:most]
    return [index for index in chosen if index in known.union(others)]
