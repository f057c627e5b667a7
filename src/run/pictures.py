"""The images whose pictures a job's report shows: examples, and those that predictions choose."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from ..analysis.trajectories import by_kind, typical_images
from ..artifacts.jobs import FinishedJob
from ..cache.rows import Rows
from ..measure.attack_cost import AdversarialImages, examples, most_pictures
from ..measure.protocol import RowRequest
from ..report.results import described_images
from ..utils.processes import from_first_process
from .compute import compute
from .stages import JobContext
from .stored_rows import read_rows

ATTACKED_AGAIN = 0.05
"""Share of a job's images that are attacked again for pictures, at most."""


def choose_pictures(job: JobContext, finished: FinishedJob | None, cache: Rows) -> list[int]:
    """Return the images to show, the first ones first; all their adversarial versions are stored.

    Named images come first, then those that the predictions choose, then the other examples. The
    chosen images that are not stored are attacked again, up to `ATTACKED_AGAIN`. `finished` is the
    job; None: another process has it.
    """
    if not job.planned.attack and not job.planned.saved:
        return []
    chosen = list[int]()
    if finished is not None and job.settings.report.examples:
        chosen = _affordable(job, _chosen(finished), cache)
        finished.forget()
    index: Sequence[int] = from_first_process(chosen)
    measurement = AdversarialImages()
    requests = [replace(request, index=np.sort(index)) for request in _requests(job)]
    if index and requests:
        compute(job, dict.fromkeys(requests, measurement), cache, attacked=True, rerun=False)
    return list(dict.fromkeys([*job.settings.report.images, *index, *examples(job)]))


def _requests(job: JobContext) -> list[RowRequest]:
    """Return the requests for all adversarial versions of pictures alone; none for a saved set."""
    return [
        replace(request, also_store=None) for request in AdversarialImages().requests(job, None)
    ]


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


def _affordable(job: JobContext, chosen: Sequence[int], cache: Rows) -> list[int]:
    """Return the first of the chosen images: as many as may be stored and attacked again.

    Images that an earlier call attacked again count as not stored, so that each call chooses alike.
    """
    requests, nothing = _requests(job), np.array([], np.int64)
    every = AdversarialImages().requests(job, None)  # does the pass store those of all images?
    whole = job.settings.save_adversarial or all(its.also_store is not None for its in every)
    rows = read_rows(job, requests, cache) if whole else {}
    stored = [rows[its]["index"].to_numpy() if its in rows else nothing for its in requests]
    known = {*examples(job)}
    others = [index for index in chosen if index not in known]
    lacking = [index for index in others if not all(index in its for its in stored)]
    # None if results would differ without the other images of a batch.
    most = int(ATTACKED_AGAIN * len(job.images)) if job.images_apart else 0
    left_out = {*lacking[most:]}
    others = [index for index in others if index not in left_out][: most_pictures(job)]
    return [index for index in chosen if index in known.union(others)]
