"""Rebuild docs/findings.md and its figures from docs/results/, or store a sweep's tables there."""

import argparse
from pathlib import Path

import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from findings.collect import collect
from findings.numbers import Sweep, p_value, span
from src.report.page import VEGA_LITE
from src.utils.files import atomic_write, write_text

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = DOCS / "results"
MODELS = ("mobilenet", "squeezenet")
PAIRS = (("mobilenet", "squeezenet"), ("squeezenet", "mobilenet"))
FIGURES = ("answer", "hypothesis", "filtered")
EVERY = 23  # attacks in conf/attack/


def page() -> str:
    """Return docs/findings.md as the stored tables have it."""
    photographs, attacks = Sweep([RESULTS / "photographs"], pairs=8), Sweep([RESULTS / "attacks"])
    against = attacks.against("bim", PAIRS)

    def beyond(attack: str, source: str) -> str:
        if attack == "bim":
            return ""
        row = against[(against["attack"] == attack) & (against["source"] == source)].iloc[0]
        return f"{span(row, 'difference', 100, '.0f')}, {p_value(row['p_holm'])}"

    def mi(control: str, source: str) -> pd.Series:
        target = dict(PAIRS)[source]
        return attacks.row("excess", attack="mi", source=source, target=target, control=control)

    left = EVERY - len({job.attack for job in attacks.jobs})
    missing = f"{left} of the {EVERY} attacks are not in the table yet." if left else ""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"ljust": str.ljust, "rjust": str.rjust}
    return environment.get_template("findings.md.j2").render(
        photographs=photographs,
        attacks=attacks,
        targeted=Sweep([RESULTS / "targeted"]),
        models=MODELS,
        pairs=PAIRS,
        joint=photographs.rates("fgsm", *PAIRS[0])["denominator"],
        attack_tests=(photographs.found.table("tests")["kind"] == "attack").sum(),
        against=against,
        beyond=beyond,
        mi=mi,
        missing=missing,
        span=span,
        p_value=p_value,
    )


def write_figures() -> None:
    """Draw the figures of the page."""
    photographs = Sweep([RESULTS / "photographs"], pairs=8)
    for name in FIGURES:
        png = vl_convert.vegalite_to_png(
            photographs.figure(name).spec, vl_version=VEGA_LITE, scale=2
        )
        with atomic_write(DOCS / f"{name}.png") as temporary:
            temporary.write_bytes(png)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m findings", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    store = commands.add_parser("collect", help="store the tables of sweeps")
    store.add_argument("name", help="of a folder in docs/results/")
    store.add_argument("sweeps", nargs="+", type=Path)
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.sweeps, RESULTS / options.name)
    else:
        write_text(DOCS / "findings.md", page())
        write_figures()


if __name__ == "__main__":
    main()
