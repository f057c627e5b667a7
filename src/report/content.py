"""What a report consists of: drawings, tables and words, before any of it is HTML."""

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure with its words and its data.

    Attributes:
        name: Stem of its files, unique in the report: letters, digits, `-`, `_`, `.`.
        title: Heading.
        caption: What it shows, with denominators.
        alt: What a reader who cannot see it needs to know.
        figure: None if it cannot be drawn; `reason` then says why.
        reason: One sentence, empty if there is a figure.
        data: What is drawn, as it is offered as CSV.
        picture: Whether it mostly holds photographs, so that pixels serve better than lines.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure | None = None
    reason: str = ""
    data: pd.DataFrame | None = None
    picture: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to be read.

    Attributes:
        name: Stem of its file, as for drawings.
        title: Heading.
        caption: What it shows, with denominators.
        frame: Its cells as they are to be shown; the columns are the headings, the first column
            heads the rows.
        data: The same as numbers, as offered as CSV; None: `frame` itself.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class Matrix:
    """The transfer matrix of one attack, at every budget.

    Attributes:
        attack: Name of the attack, with what else tells its jobs apart.
        dataset: Name of the data set.
        protocol: Which images form the denominators that are shown first.
        counted: What is counted, such as `still correct`.
        rate: Its share, such as `robust accuracy`.
        standard: Budget that is shown first, in units of 1/255.
        cells: Rows with `protocol`, `source` (made on), `target` (shown to), `eps_255`,
            `white_box`, `count`, `denominator`, `rate`, `low` and `high` (95 % interval); the
            reader chooses among the protocols. The rows whose source is `clean` have
            eps_255 = 0 and say the same under each. Rates are NaN where the denominator is 0.
    """

    attack: str
    dataset: str
    protocol: str
    counted: str
    rate: str
    standard: float
    cells: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        id: Anchor: lower-case letters, digits and hyphens, unique in the report.
        title: Heading.
        text: Paragraphs.
        drawings: Figures.
        tables: Tables.
    """

    id: str
    title: str
    text: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Pair:
    """What is told of one attack, source and target; the reader picks one at a time.

    Attributes:
        attack: As in its `Matrix`.
        source: Model that the images were made on.
        target: Model that they were shown to.
        white_box: Whether the source's own gradients made the target's images.
        text: Paragraphs; the first one is the sentence on Hypothesis 1.
        drawings: Curves, confidence bins, galleries and so on.
        tables: Numbers.
    """

    attack: str
    source: str
    target: str
    white_box: bool
    text: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Download:
    """A file inside the page.

    Attributes:
        name: File name.
        description: What it holds.
        content: Its bytes.
        media_type: Such as `text/csv`.
    """

    name: str
    description: str
    content: bytes
    media_type: str = "text/csv"


@dataclass(frozen=True)
class Report:
    """Everything that a page shows, in its order.

    Attributes:
        title: Of the page.
        answer: The finding in a sentence or two.
        facts: What was run, as (term, value): command, data, models, weights, seed, versions.
        matrices: One an attack.
        before: Sections between the matrices and the pairs.
        pairs: Details of pairs, behind a picker.
        after: Sections after the pairs.
        missing: Sentences that say what the jobs did not compute, and how to have it.
        notes: (term, definition) of every number.
        downloads: Data inside the page.
    """

    title: str
    answer: str
    facts: tuple[tuple[str, str], ...] = ()
    matrices: tuple[Matrix, ...] = ()
    before: tuple[Section, ...] = ()
    pairs: tuple[Pair, ...] = ()
    after: tuple[Section, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    downloads: tuple[Download, ...] = field(default=())
