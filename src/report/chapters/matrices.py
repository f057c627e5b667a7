"""The transfer matrices at every budget, and the answer in a sentence."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from src.analysis import CLEAN, MEASURES, PROTOCOLS, is_white_box, matrix, usable_protocols
from src.analysis.matrix import is_targeted, measure_of, words_of
from src.report.chapters.drawing import drawn
from src.report.content import Matrix, Section
from src.report.figures import heat_map
from src.report.stored import StoredJob
from src.report.sweep_files import by_attack, job_rates


def matrices(jobs: Sequence[StoredJob]) -> tuple[Matrix, ...]:
    """Return a matrix for every attack, with the budgets and protocols that all its jobs have."""
    return tuple(_matrix(attack, done) for attack, done in by_attack(jobs).items())


def _matrix(attack: str, done: Sequence[StoredJob]) -> Matrix:
    record = done[0].record
    budgets = set.intersection(*(set(job.predictions["eps_255"]) for job in done)) - {0.0}
    cells = pd.concat(
        [_cells(done, protocol, sorted(budgets)) for protocol in _protocols(done)],
        ignore_index=True,
    )
    measure = measure_of(cells)
    words = words_of(measure, is_targeted(cells))
    cells = cells.rename(
        columns={
            MEASURES[measure]: "count",
            measure: "rate",
            f"{measure}_low": "low",
            f"{measure}_high": "high",
        }
    )
    cells["white_box"] = [
        is_white_box(source, target)
        for source, target in zip(cells["source"], cells["target"], strict=True)
    ]
    return Matrix(
        attack=attack,
        dataset=record.dataset,
        protocol=record.protocol,
        counted=words.counted,
        rate=words.rate,
        standard=record.standard if record.standard in budgets else max(budgets),
        cells=cells.drop(columns=["cell", "targeted"]),
    )


def _protocols(done: Sequence[StoredJob]) -> list[str]:
    """Return the jobs' own protocol, and the others for which all of them have clean rows."""
    usable = [usable_protocols(job.predictions, job.record.source) for job in done]
    own = done[0].record.protocol
    return [one for one in PROTOCOLS if one == own or all(one in found for found in usable)]


def _cells(done: Sequence[StoredJob], protocol: str, budgets: Sequence[float]) -> pd.DataFrame:
    """Return the matrices of one protocol below each other, the row of clean images once."""
    by_source = {job.record.source: job_rates(job, protocol) for job in done}
    tables = [matrix(by_source, eps) for eps in budgets]
    clean = tables[0][tables[0]["source"] == CLEAN]
    attacked = [table[table["source"] != CLEAN] for table in tables]
    return pd.concat([clean, *attacked]).assign(protocol=protocol)


def answer(found: Sequence[Matrix]) -> str:
    """Say how the attacks fared in the white box and elsewhere, by the headline's protocol."""
    sentences = []
    for one in found:
        at = one.cells[one.cells["eps_255"] == one.standard]
        at = at[(at["protocol"] == one.protocol) & (at["denominator"] > 0)]
        words = [
            f"{_share(rows)} {where} ({_number(len(rows), 'pair')} of {_images(rows)})"
            for where, rows in (
                ("in the white box", at[at["white_box"]]),
                ("on other models", at[~at["white_box"]]),
            )
            if not rows.empty
        ]
        if words:
            where = f"{one.attack} at {one.standard:g}/255 on {one.dataset}"
            sentences.append(f"{where}: {one.rate} {', '.join(words)}.")
    return " ".join(sentences) or "No image was counted."


def _share(rows: pd.DataFrame) -> str:
    """Write the rate of one pair with its counts, of several as a range."""
    if len(rows) > 1:
        return f"{_between(100 * rows['rate'], '.1f')} %"
    ((count, denominator, rate),) = rows[["count", "denominator", "rate"]].itertuples(index=False)
    return f"{count} / {denominator} = {100 * rate:.1f} %"


def _images(rows: pd.DataFrame) -> str:
    sizes = rows["denominator"]
    return f"{_between(sizes, 'd')} {'image' if sizes.max() == 1 else 'images'}"


def _number(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what + 's'}"


def _between(values: pd.Series, form: str) -> str:
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


def heat_maps(jobs: Sequence[StoredJob]) -> Section:
    """Return the matrices at their headline budget as figures."""
    drawings = []
    for number, (attack, done) in enumerate(by_attack(jobs).items()):
        record = done[0].record
        cells = matrix({job.record.source: job_rates(job) for job in done}, record.standard)
        drawings.append(
            drawn(
                f"matrix-{number}-{record.attack}",
                f"Transfer matrix, {attack}",
                f"Rows: made on. Columns: shown to. Budget {record.standard:g}/255, protocol "
                f"{record.protocol}; every cell gives its counts.",
                "; ".join(
                    f"made on {row.source}, shown to {row.target}: {row.cell}"
                    for row in cells.itertuples()
                ),
                partial(
                    heat_map,
                    cells,
                    dataset=record.dataset,
                    attack=attack,
                    protocol=record.protocol,
                ),
                cells,
            )
        )
    return Section(
        id="matrices-as-figures",
        title="The matrices as figures",
        text=("The tables at the top of this page, drawn for a paper.",),
        drawings=tuple(drawings),
    )
