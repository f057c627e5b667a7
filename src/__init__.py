"""Measure how adversarial examples transfer from their source model to others.

The command line is `python -m src.main` in a clone, and `transferability` where it is installed.
The Python interface consists of

- `attacks`: the attacks as functions, see below;
- `load_classifier`: load a catalogue model with the weights that the command line uses;
- `load_sweep`: load the predictions of finished sweeps as one data frame;
- `load_table`: load another table of finished sweeps, such as a diagnostic's;
- `transfer`: attack any torch modules, evaluate others on the same images, return such a frame;
- `rates`: compute counts, rates and intervals from a frame;
- `matrix`, `curves`, `ranking` and `cost`: draw charts of a frame or of finished sweeps;
- `confidence_groups`, `image`, `strip` and `profiles`: draw charts of one source and target;
- `rank`: rank an attack of yours among the stored attacks of a preset;
- `rankings`: rank attacks or sources, with their differences from the first;
- `compare`: compute how much accuracy changed between two sweeps on the same images;
- `tries`: compute the share of images that are fooled within q candidates;
- `images_needed`: compute how many images decide such a difference;
- `table`: lay out the results as a table for a paper.

**Attacks.** Every attack is called like `attacks.mi(model, images, labels, eps)`, with

- `model`: a torch module, or any differentiable function, from images to logits of shape (N, C).
  It includes the normalisation. A module is attacked in evaluation mode and left as it was;
- `images`: shape (N, 3, H, W), float32 or float64 in [0, 1]; anything else is refused;
- `labels`: the true classes, shape (N,), or with `targeted=True` the classes to reach;
- `eps`: the budget in the same units, such as `8 / 255`; K budgets as a list or a tensor; or K
  budgets per image, shape (K, N). With `norm="l2"` it limits the root-mean-square change of an
  image.

The call returns detached images of shape (N, 3, H, W), or (K, N, 3, H, W) for several budgets, that
keep within the budget and [0, 1]. Settings such as `steps=20` are keywords. `help(attacks.mi)`
shows an attack's own settings, its formula and its paper; `help(attacks.Settings)` explains the
settings that all attacks share. Editors complete them. An unknown keyword raises a `TypeError`, a
wrong value a `ValueError`. Equal calls draw equal random numbers; to change them, pass `seeds`, one
whole number per image.

**The name.** In a clone the package is `src`. A wheel installs it as `transferability`, and leaves
the name `src` to you. A `_target_` may use either name: both mean the running package.
"""

import os
import sys
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

from .utils.package import lazily

__all__, __getattr__ = lazily(__name__, __file__)  # importing torch alone takes seconds

# Streams that were closed, as in `command >&-`, are opened on the null device before other imports
# open files. Otherwise libraries fail, and a data file gets the number of a closed stream.
for _name, _mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, _name) is None:
        _number = os.open(os.devnull, os.O_RDWR)  # the stream's number, the lowest free one
        os.set_inheritable(_number, True)
        setattr(sys, _name, os.fdopen(_number, _mode, errors="replace", closefd=False))

# A user that the system does not know, as in containers, has no home folder: imports of libraries
# fail. Processes that this one starts have the new one, too.
if os.path.expanduser("~") == "~":
    os.environ["HOME"] = mkdtemp(prefix="home-")
    print(f"There is no home folder; HOME is now {os.environ['HOME']}.", file=sys.stderr)

# On a GPU, cuBLAS is deterministic only if it finds this variable when it starts.
if (_torch := sys.modules.get("torch")) is None or not _torch.cuda.is_initialized():
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class _Package(ModuleType):
    """This package: its public functions stay functions when a command of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in {"compare", "table"}):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    """Return all names, including the public ones that are not imported yet, for completion."""
    return [*globals(), *__all__]
