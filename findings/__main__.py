"""Rebuild the pages of findings and their figures from docs/results/, or store tables there."""

import argparse
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from findings.baselines import TUNING, pack, pack_preset
from findings.board import CONVOLUTIONAL, EQUAL_COST, Boards
from findings.collect import collect
from findings.costs import COSTS, MOST, MOST_OF_TRANSFORMERS
from findings.defences import adaptive, behind_defences, loss_behind, through_defences, undefended
from findings.implementations import markdown
from findings.networks import Networks, frequencies
from findings.numbers import Sweep, beside_published, difference, p_value, span
from findings.own_settings import OwnSettings
from findings.step_rule import step_rule
from findings.trainings import Trainings
from src import curves, ranking
from src.analysis import KINDS, MEAN_OF
from src.artifacts import FinishedJob, find_jobs
from src.report import standing
from src.utils.files import atomic_write, write_text
from src.utils.formats import format_cell
from src.utils.model_names import NO_DEFENCE

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = DOCS / "results"
REFERENCES = HERE.parent / "tests" / "attacks" / "references" / "references.csv"
MODELS = ("mobilenet", "squeezenet")
PAIRS = (("mobilenet", "squeezenet"), ("squeezenet", "mobilenet"))
CIFAR_MODELS = ("vgg16", "resnet50", "inception")
EMBEDDED = ("vgg_small", "resnet_small", "inception_small", "mobilenet_small", "vit_small")
FREQUENCIES = "networks-frequencies.parquet"
"""Success of filtered perturbations in a sweep on six networks, as the report counts it."""
STEP_RULES = {
    "8/255 between small networks (CIFAR-10)": "step-rule.card",
    "16/255 between ImageNet networks (photographs)": "step-rule-photographs.card",
}
"""Cards of attacks with and without a step rule, by what they are of."""
OWN_GRID = "jpeg on the images' own grid"
PLAIN = ("fgsm", "mi", "di", "bsr")
"""Attacks of three sources on small networks behind defences."""


@cache
def sweep_of(name: str) -> Sweep:
    """Return a folder of docs/results/, whose statistics are computed once."""
    return Sweep(RESULTS / name)


def pages() -> dict[str, str]:
    """Render the templates: the text of each page by its path in docs/."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True
    )
    parts = (f"pages/{path.stem}" for path in HERE.glob("pages/*.md.j2"))
    templates = {name: environment.get_template(f"{name}.j2") for name in ("findings.md", *parts)}
    values = page_values()
    return {
        name.replace("pages/", "findings/"): template.render(values)
        for name, template in templates.items()
    }


def page_values() -> dict[str, Any]:
    """Compute what the templates show, from the stored tables."""
    photographs, attacks = sweep_of("photographs"), sweep_of("attacks")
    cifar = sweep_of("cifar")
    cifar_large = sweep_of("cifar-large")
    published = pd.read_csv(RESULTS / "published.csv")
    apart, beyond = beside_published(published, cifar_large, 32)
    cifar_pairs = list(permutations(CIFAR_MODELS, 2))
    six = find_jobs([RESULTS / "networks-defences.card"])
    plain_six = [job for job in six if job.record.source_model.defence == NO_DEFENCE]
    through = find_jobs([RESULTS / "defences-adaptive"])
    networks, preset = Networks(RESULTS / "networks.card"), Boards("photographs")
    board = Boards("small")

    def mi(control: str, source: str) -> pd.Series:
        target = dict(PAIRS)[source]
        return attacks.row("excess", attack="mi", source=source, target=target, control=control)

    return dict(
        photographs=photographs,
        attacks=attacks,
        on_photographs=on_photographs(),
        targeted=sweep_of("targeted"),
        models=MODELS,
        pairs=PAIRS,
        joint=photographs.rates("fgsm", *PAIRS[0])["denominator"],
        against=attacks.against("bim", PAIRS),
        difference=difference,
        cifar=cifar,
        cifar_large=cifar_large,
        cifar_pairs=cifar_pairs,
        cifar_models=CIFAR_MODELS,
        cifar_against=cifar.against("bim", cifar_pairs),
        cifar_others=[attack for attack in cifar.attacks() if attack != "bim"],
        published=published,
        apart=apart,
        beyond=beyond,
        budgets=(0, 1, 2, 4, 8, 12, 16),
        kinds=KINDS,
        board=board,
        equal_cost={cost: board.equal_cost(cost) for cost in COSTS},
        equal_cost_sources=CONVOLUTIONAL,
        own_settings=own_settings(),
        costs=COSTS,
        most=MOST,
        most_of_transformers=MOST_OF_TRANSFORMERS,
        behind_small={name: behind_small(name) for name in PLAIN},
        convolutional={name: behind_small(name, CONVOLUTIONAL) for name in (*PLAIN, "pgd")},
        six_behind={
            name: behind(plain_six, name, six[0].record.targets) for name in ("fgsm", "mi", "di")
        },
        six_through=through_defences(six, six[0].record.targets),
        six_undefended=undefended(six, six[0].record.targets),
        small_undefended={name: undefended_small(name) for name in ("resnet_small", "vgg_small")},
        noisy=behind(
            [job for job in through if "smoothing" in job.record.defences], "mi", ["resnet_noisy"]
        ),
        adaptive=adaptive_rows(through),
        jpeg_loss=jpeg_loss,
        own_grid=OWN_GRID,
        gains_of=gains,
        jpeg_by_source={
            name: behind_small("mi", (name,)).loc["jpeg"] for name in (*CONVOLUTIONAL, "vit_small")
        },
        most_gained=most_gained,
        between=between,
        cell=format_cell,
        mi=mi,
        networks=networks,
        step_rules={name: step_rule(RESULTS / card) for name, card in STEP_RULES.items()},
        trainings=Trainings(RESULTS / "trainings.card"),
        standing=lambda ranked: standing(ranked.assign(attack="`" + ranked["attack"] + "`")),
        libraries=pd.read_csv(REFERENCES)["library"].value_counts(),
        published_small=Networks(RESULTS / "published-small.card"),
        study=Networks(RESULTS / "networks-grid.card"),
        frequencies=frequencies(pd.read_parquet(RESULTS / FREQUENCIES)),
        preset_photographs=preset,
        six_means=preset.board("own", networks.sources).rows.set_index("attack"),
        span=span,
        p_value=p_value,
        markdown=markdown,
        implementations=lambda name: pd.read_csv(
            RESULTS / "implementations" / f"{name}.csv", dtype=str, keep_default_na=False
        ),
    )


@cache
def own_settings() -> OwnSettings:
    """Return the attacks at own settings on small networks."""
    return OwnSettings(pd.read_csv(RESULTS / "published-attacks.csv"))


def on_photographs() -> pd.DataFrame:
    """Return the ranking of untargeted attacks on the photographs, the mean over both sources."""
    sweeps = [sweep_of(name) for name in ("attacks", "kinds-photos")]
    rows = pd.concat([each.results.rankings for each in sweeps], ignore_index=True)
    mean = rows["source"].str.startswith(MEAN_OF) & (rows["eps_255"] == 16)
    rows = rows[mean & ~rows["targeted"] & (rows["norm"] == "linf")]
    rows = rows.dropna(subset="rank")
    return rows.drop_duplicates("attack").sort_values("mean", ascending=False).set_index("attack")


def behind(jobs: Sequence[FinishedJob], attack: str, targets: Sequence[str]) -> pd.DataFrame:
    """Return `behind_defences` of the jobs of an attack."""
    rows = behind_defences([job for job in jobs if job.record.attack == attack], targets)
    return rows.set_index("defence")


@cache
def behind_small(attack: str, sources: Sequence[str] = EMBEDDED) -> pd.DataFrame:
    """Return `behind_defences` of the small networks, with JPEG on another grid than the images'.

    The images are JPEG files of the defence's quality, so that on their own grid the defence hardly
    changes clean images; the row `OWN_GRID` shows it.
    """
    names = "adaptive" if attack == "pgd" else "small", "jpeg"
    stored = [find_jobs([RESULTS / f"defences-{name}"]) for name in names]
    own, off = (
        behind([job for job in jobs if job.record.source in sources], attack, EMBEDDED)
        for jobs in stored
    )
    rows = [own.loc[["none"]], off.loc[["jpeg"]], own.loc["jpeg":].rename({"jpeg": OWN_GRID})]
    return pd.concat(rows)


def gains(row: str, column: str = "gain") -> pd.Series:
    """Return the gains of one row of `behind_small` by attack, or another column."""
    tables = map(behind_small, PLAIN)
    return pd.Series([table[column][row] for table in tables])


def equal_cost_on(other: FinishedJob, source: str) -> list[FinishedJob]:
    """Return the stored attacks of equal cost from one source, on the images of another job."""
    jobs = [job for job in find_jobs([EQUAL_COST]) if job.record.source == source]
    for job in jobs:
        rows = job.defended
        vars(job)["defended"] = rows[rows["index"].isin(other.defended["index"])]
    return jobs


def jpeg_loss(source: str, targets: Sequence[str] = EMBEDDED) -> pd.Series:
    """Return `loss_behind` of JPEG, for `pgd` through it and the strongest stored attack."""
    jobs = find_jobs([RESULTS / "defences-jpeg"])
    known = next(job for job in jobs if job.record.source == f"{source}@jpeg")
    strongest = undefended_small(source)["attack"][0]
    plain = [job for job in equal_cost_on(known, source) if job.record.attack == strongest]
    return min((loss_behind(known, job, targets) for job in plain), key=lambda row: row["loss"])


def most_gained(defences: Sequence[str], column: str = "gain") -> float:
    """Return the largest gain of some rows of `behind_small`, or of another column."""
    return max(gains(row, column).max() for row in defences)


def adaptive_rows(through: Sequence[FinishedJob]) -> pd.DataFrame:
    """Return `adaptive` of the small networks, with JPEG on another grid than the images'."""
    off = [job for job in find_jobs([RESULTS / "defences-jpeg"]) if job.attack[:3] in ("mi", "pgd")]
    others = [job for job in through if not job.record.source.endswith("@jpeg")]
    rows, jpeg = adaptive(others, EMBEDDED), adaptive(off, EMBEDDED)
    bare = rows["defence"] == "none"
    return pd.concat([rows[bare], jpeg[jpeg["defence"] == "jpeg"], rows[~bare]], ignore_index=True)


def undefended_small(source: str) -> pd.DataFrame:
    """Return `undefended` of a small network, with JPEG on another grid than the images'.

    The strongest stored attack of equal cost is the first row if none is stronger.
    """
    names = ("defences-adaptive", "defences-jpeg")  # of two jobs through JPEG the last counts
    jobs = [job for name in names for job in find_jobs([RESULTS / name])]
    jobs = [job for job in jobs if job.record.source_model.model == source]
    beside = [*equal_cost_on(jobs[0], source), *jobs]
    rows = undefended(beside, EMBEDDED).drop_duplicates(["attack", "defence"])
    return rows[rows["attack"].isin([job.record.attack for job in jobs]) | (rows.index == 0)]


def between(shares: pd.Series) -> str:
    """Write the range of some shares."""
    low, high = (f"{100 * end:.0f}" for end in (shares.min(), shares.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def write_figures() -> None:
    """Draw the figures of the pages."""
    charts = {
        "photographs": curves(RESULTS / "photographs", width="5in", height="2.5in"),
        "filtered": sweep_of("photographs").chart("filtered"),
        "cifar": ranking(RESULTS / "cifar"),
    }
    for name, chart in charts.items():
        with atomic_write(DOCS / f"{name}.png") as temporary:
            chart.save(temporary, format="png", scale_factor=2)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m findings", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    store = commands.add_parser("collect", help="store the tables of sweeps")
    store.add_argument("name", help="of a folder in docs/results/")
    store.add_argument("sweeps", nargs="+", type=Path)
    card = commands.add_parser("card", help="store sweeps as a card")
    card.add_argument("name", help="of a card in docs/results/, without .card")
    card.add_argument("sweeps", nargs="+", type=Path)
    preset = commands.add_parser("baselines", help="store sweeps as the baselines of a preset")
    preset.add_argument("name", help="of the preset")
    preset.add_argument("sweeps", nargs="+", type=Path)
    preset.add_argument("--tuning", type=int, default=TUNING, help="number of images for tuning")
    preset.add_argument(
        "--page", default="", help="page about its images and networks, as docs/PAGE.md"
    )
    bands = commands.add_parser("frequencies", help=f"store a sweep's counts as {FREQUENCIES}")
    bands.add_argument("sweep", type=Path)
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.sweeps, RESULTS / options.name)
    elif options.command == "card":
        pack(RESULTS / f"{options.name}.card", find_jobs(options.sweeps))
    elif options.command == "baselines":
        pack_preset(options.name, options.sweeps, options.tuning, options.page)
    elif options.command == "frequencies":
        Sweep(options.sweep).tables["filtered"].to_parquet(RESULTS / FREQUENCIES, index=False)
    else:
        for path, text in pages().items():
            write_text(DOCS / path, text)
        write_figures()


if __name__ == "__main__":
    main()
