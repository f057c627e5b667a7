"""Measure how adversarial examples transfer from their source model to others.

The command line is `python -m src.main`. From Python there are

- `attacks`: the attacks as functions, see below;
- `load_classifier`: a model with the weights that the command line has;
- `load_sweep`: the predictions of finished sweeps as one data frame;
- `transfer`: any torch modules attacked, and evaluated on the same images, as such a frame;
- `rates`: counts, rates and intervals of a frame;
- `matrix`, `curves`, `ranking` and `cost`: charts of a frame or of finished sweeps;
- `rankings`: attacks, or sources, ranked, with their differences from the first;
- `images_needed`: how many images decide such a difference;
- `table`: a table of them for a paper.

**Attacks.** `attacks.mi(model, images, labels, eps)`, and every other attack, takes

- `model`: a torch module, or any differentiable function, that maps images to logits of shape
  (N, C). It normalises by itself; a module is attacked in evaluation mode and left as it was;
- `images`: shape (N, 3, H, W), float32 or float64 in [0, 1]; others are refused;
- `labels`: the true classes, shape (N,); with `targeted=True` those to reach;
- `eps`: the budget in the same units, such as `8 / 255`; K of them as a list or a tensor; or K for
  each image, shape (K, N). With `norm="l2"` it is the largest root-mean-square
  change of an image.

It returns images of shape (N, 3, H, W), or (K, N, 3, H, W) for several budgets, detached, within
the budget and [0, 1]. Settings such as `steps=20` are keywords: `help(attacks.mi)` lists those of
an attack, with its formula and its paper, `help(attacks.Settings)` says what those of all attacks
mean. An unknown one is a `TypeError`, a wrong value a `ValueError`. Equal calls draw equal random
numbers, which `seeds`, a whole number per image, changes.

**A folder src of your own.** The package is named `src`. Python searches the script's folder or,
with `-c`, `-m` and in notebooks, the current folder first; a folder `src` there, with or without an
`__init__.py`, hides this package. Run Python from another folder then, or with `python -P`, or with
`PYTHONSAFEPATH=1` in the environment (for notebooks, before Jupyter is started): that leaves those
folders out, and the installed package is found. `src.__file__` shows which one it was.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src import attacks as attacks
    from src.api.charts import cost as cost
    from src.api.charts import curves as curves
    from src.api.charts import matrix as matrix
    from src.api.charts import ranking as ranking
    from src.api.classifier import load_classifier as load_classifier
    from src.api.frames import load_sweep as load_sweep
    from src.api.frames import rates as rates
    from src.api.rankings import images_needed as images_needed
    from src.api.rankings import rankings as rankings
    from src.api.transfer import transfer as transfer
    from src.report.paper import table as table

_HOMES = {
    "attacks": "src.attacks",
    "cost": "src.api.charts",
    "curves": "src.api.charts",
    "images_needed": "src.api.rankings",
    "load_classifier": "src.api.classifier",
    "load_sweep": "src.api.frames",
    "matrix": "src.api.charts",
    "ranking": "src.api.charts",
    "rankings": "src.api.rankings",
    "rates": "src.api.frames",
    "table": "src.report.paper",
    "transfer": "src.api.transfer",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what a public name stands for when it is asked for: torch alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if name == "attacks" else getattr(home, name)


def __dir__() -> list[str]:
    """List the public names too, which notebooks complete."""
    return [*globals(), *__all__]
