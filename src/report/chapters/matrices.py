"""The transfer matrices at every budget, and the answer in a sentence."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from src.analysis import CLEAN, MEASURES, is_white_box, matrix
from src.analysis.matrix import measure_of, words_of
from src.report.chapters.drawing import drawn
from src.report.content import Matrix, Section
from src.report.figures import heat_map
from src.report.stored import StoredJob
from src.report.sweep_files import by_attack, job_rates


def matrices(jobs: Sequence[StoredJob]) -> tuple[Matrix, ...]:
    """Return a matrix for every attack, with the cells of every budget that all its jobs have."""
    return tuple(_matrix(attack, done) for attack, done in by_attack(jobs).items())


def _matrix(attack: str, done: Sequence[StoredJob]) -> Matrix:
    by_source = {job.record.source: job_rates(job) for job in done}
    shared = set.intersection(*(set(rows["eps_255"]) for rows in by_source.values())) - {0.0}
    record = done[0].record
    tables = [matrix(by_source, eps) for eps in sorted(shared)]
    measure = measure_of(tables[0])
    words = words_of(measure, bool(tables[0]["targeted"].any()))
    cells = pd.concat([tables[0][tables[0]["source"] == CLEAN], *(_attacked(t) for t in tables)])
    cells = cells.rename(
        columns={
            MEASURES[measure]: "count",
            measure: "rate",
            f"{measure}_low": "low",
            f"{measure}_high": "high",
        }
    ).reset_index(drop=True)
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
        standard=record.standard if record.standard in shared else max(shared),
        cells=cells.drop(columns=["cell", "targeted"]),
    )


def _attacked(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["source"] != CLEAN]


def answer(found: Sequence[Matrix]) -> str:
    """Say in a sentence or two how the attacks fared in the white box and elsewhere."""
    sentences = []
    for one in found:
        at = one.cells[one.cells["eps_255"] == one.standard]
        at = at[at["denominator"] > 0]
        words = [
            f"{_between(rows['rate'], '.1%')} {where} ({len(rows)} "
            f"{'pair' if len(rows) == 1 else 'pairs'} of {_between(rows['denominator'], 'd')} "
            "images)"
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
