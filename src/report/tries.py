"""Success within q candidates of finished jobs, as a frame and as text."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from typing import Any

import pandas as pd

from ..analysis.image_outcomes import ImageOutcomes, joined
from ..analysis.tries import success_within
from ..artifacts.frame_jobs import Sweeps, jobs_of
from ..artifacts.jobs import FinishedJob
from ..utils.files import no_formula
from ..utils.model_names import NO_DEFENCE, renamed
from .cells import TableSpec
from .paper import ESCAPES
from .summary import JobSummary, summarise

SHOWN = (1, 2, 5, 10, 20, 50)
_LISTED = 10
"""Numbers of candidates in the table, and the length of the listed order."""
_HEADS = {"fooled": "fooled", "unseen": "unseen target", "single": "best single"}


def tries(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    eps_255: float | None = None,
    defence: str = NO_DEFENCE,
) -> pd.DataFrame:
    """Compute the share of images that are fooled within q = 1, 2, ... candidates.

    A candidate is an attack with its source and its first seed, an untargeted one if there are any.
    An attacker tries candidates in an order that was learned on other images. Candidates from
    networks related to the target are skipped, as by `related="exclude"`. Folders are as for
    `table`.

    Args:
        folder: A frame from `load_sweep` or `transfer`, or folders.
        *more: Further folders.
        eps_255: Budget in units of 1/255; None: the reference budget.
        defence: Defence of the targets.

    Returns:
        The rows of `success_within`, with one row per q.

    Raises:
        ValueError: The jobs differ in their images, norm or budget; no image is left; or there is
            no such budget or defence.
    """
    groups = comparable(jobs_of(folder, *more))
    if len(groups) != 1:
        raise ValueError(
            "tries needs attacks on the same images and models, with one norm and budget, by one "
            "version of the program."
        )
    every, costs = candidates_of(groups[0], eps_255)
    every = every.select(defence=defence)
    if not every.targets:
        raise ValueError(f"defence={defence}: no target is behind it.")
    return success_within(every, costs)


def comparable(jobs: Sequence[FinishedJob]) -> list[list[JobSummary]]:
    """Group jobs as `Summary.groups`, under the protocol of units and without related targets.

    A unit needs that both target and source are right, whatever the jobs' own protocol.
    """
    joint = {"protocol": "joint"}
    units = [replace(job, record=job.record.model_copy(update=joint)) for job in jobs]
    return summarise(units, "exclude").groups


def candidates_of(
    group: Sequence[JobSummary], eps_255: float | None = None
) -> tuple[ImageOutcomes, list[float]]:
    """Return the outcomes of comparable jobs at a budget, and their gradients per image.

    Only first seeds count, and if there are any, only untargeted attacks.
    """
    eps = group[0].job.record.reference if eps_255 is None else eps_255
    parts = [(its.outcomes[eps].of_first_seeds(), its.cost) for its in group if eps in its.outcomes]
    untargeted = [part for part in parts if part[0].target_labels[0] is None]
    if not parts:
        raise ValueError(f"eps_255={eps:g}: there are no images with this budget.")
    parts = untargeted or parts
    costs = [cost.get("gradients_per_image", nan) for _, cost in parts]
    return joined([outcomes for outcomes, _ in parts]), costs


def tries_table(*folders: Sweeps, **options: Any) -> str:
    """Lay out the rows of `tries` as Markdown, LaTeX or CSV; CSV has all of them, as numbers.

    The options are the keywords of `table`: `eps_255`, `defence`, `names` and `to`.
    """
    spec = TableSpec(**options)
    taken = {name: getattr(spec, name) for name in ("eps_255", "defence", "names", "to")}
    if spec != TableSpec(**taken):
        raise ValueError("--tries takes only --eps, --defence, --names, --to and --out.")
    frame = tries(*folders, eps_255=spec.eps_255, defence=spec.defence or NO_DEFENCE)
    for axis in ("attack", "source"):
        frame[axis] = [renamed(name, spec.names or {}) for name in frame[axis]]
    if spec.to == "csv":
        return frame.map(no_formula).to_csv(index=False, lineterminator="\n")
    escape = ESCAPES[spec.to or "markdown"]
    order = [f"{row.q}. {row.attack} from {row.source}" for row in frame.itertuples()]
    shown = frame[frame["q"].isin([*SHOWN, len(frame)])]
    texts = pd.DataFrame({"candidates": shown["q"].astype(str)})
    for column, head in _HEADS.items():
        ends = zip(*(100 * shown[f"{column}{end}"] for end in ("", "_low", "_high")), strict=True)
        texts[head] = [_share(*its) for its in ends]
    texts["gradients"] = ["n/a" if isnan(its) else f"{its:,.0f}" for its in shown["gradients"]]
    first = frame.iloc[0]
    caption = (
        f"Images fooled within so many candidates, in % with 95 % intervals: {first['candidates']} "
        f"candidates, {first['images']} images, mean over {first['targets']} targets. Order: "
        f"{', '.join(order[:_LISTED])}."
    )
    if spec.to == "latex":
        styler = texts.map(escape).style.hide(axis="index").set_caption(escape(caption))
        return styler.to_latex(hrules=True, position="t", position_float="centering")
    lines = [list(texts), ["---"] * texts.shape[1], *texts.to_numpy()]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", escape(caption), ""])


def _share(value: float, low: float, high: float) -> str:
    if isnan(value):
        return "n/a"
    return f"{value:z.1f}" + f" [{low:z.1f}, {high:z.1f}]" * (not isnan(low))
