"""Transfer of adversarial images between any torch modules, in one call."""

from __future__ import annotations  # otherwise `help` expands the type aliases into their unions

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..artifacts.finished_job import FinishedJob
from ..artifacts.sweep_state import take_store
from ..attacks import adapt
from ..cache.rows import Rows
from ..config.attack_file import attack_settings, crafted_settings
from ..config.attack_settings import AttackSettings
from ..config.command_line import ignore_harmless_warnings
from ..config.errors import refusal
from ..config.gradient_cost import at_cost
from ..config.settings import Settings
from ..defences import Defence
from ..images.attacker import Attack, AttackError, accepted
from ..report.results import Results, results_of
from ..report.sanity_checks import explained
from ..run.check_job import attack_function, make_planned
from ..run.evaluate import Evaluation
from ..run.job import finish_job
from ..run.outputs import choose_pictures, write_results
from ..run.stages import Planned
from ..run.trainer import for_device
from ..utils.devices import arithmetic
from ..utils.model_names import NO_DEFENCE
from .classifier import Models, loaded
from .inputs import Inputs, described

log = logging.getLogger(__name__)

Images = ArrayLike | Tensor | Sequence[Any] | Dataset[Any] | DataLoader[Any]
"""Images in one of the forms of `src.api.inputs.read_images`."""


_ONE_CALL = RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence harmless warnings of libraries, and restore what a call changes for all threads.

    That are the random state, levels of logs and switches of torch, so calls of several threads
    wait for each other.
    """
    from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

    with _ONE_CALL, warnings.catch_warnings(), isolate_rng(), ExitStack() as restored:
        restored.enter_context(arithmetic("cpu", "32-true"))
        ignore_harmless_warnings()
        for logger in map(logging.getLogger, ("pytorch_lightning", "lightning")):
            restored.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        yield


@quiet()
def transfer(
    sources: Models,
    targets: Models,
    images: Images,
    labels: ArrayLike | Tensor | None = None,
    *,
    attacks: Mapping[str, Mapping[str, Any] | Attack] | Sequence[str] | str = "fgsm",
    eps: ArrayLike | Tensor = 8 / 255,
    reference: float | None = None,
    norm: str | None = None,
    target_labels: ArrayLike | Tensor | str | None = None,
    defences: Mapping[str, Defence] | None = None,
    repeats: int = 1,
    protocol: str = "joint",
    controls: bool = False,
    ensemble: str = "logits",
    index: ArrayLike | Tensor | None = None,
    fit_images: tuple[Images, ...] | None = None,
    class_names: ArrayLike | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress_bar: bool = True,
    store: str | Path | None = None,
) -> Results:
    """Attack every source with every attack, and evaluate all targets on the same images.

    The modules are copied, and run on the device that they are on.

    Args:
        sources: Modules by name. Each maps float32 images in [0, 1] of shape (N, 3, H, H) to logits
            of shape (N, C), or to an object or dict with such `logits`, and includes the
            normalisation. `a+b` names an ensemble, given as a list
            of modules. Alternatively a list of public names and such mappings:
            `["timm/resnet18.a1_in1k", {"mine": module}]`.
        targets: As `sources`, but without ensembles. A target with the name of a source is its
            white box and must be the same module.
        images: uint8, or floats in [0, 1] that are multiples of 1/255; shape (N, 3, H, H) or
            (N, H, H, 3). Also a list of Pillow images, arrays or tensors; a torch `Dataset` or
            `DataLoader` of images or of (image, label); or a column of a Hugging Face data set.
        labels: True classes, shape (N,); None: those of the `Dataset` or `DataLoader`.
        attacks: One or more names of attacks, see `src.attacks`, or a mapping. It maps an attack's
            name to the keywords that differ from the defaults (`{"mi": {"steps": 20}}`), or a name
            of your own (letters, digits and `_ . + -`) to an attack of your own: a function, an
            object or a class as for `rank`. `{"mine": partial(attacks.mi, decay=0.5)}` is one.
        eps: Budgets in [0, 1] units, such as `8 / 255`.
        reference: Budget for `matrix` and `table`; None: 8/255 if it is in `eps`, else the largest.
        norm: `linf` or `l2`; None: each attack's own norm.
        target_labels: Target labels, shape (N,), or the rule that chooses them: `least_likely`,
            `random` or `next`; None: untargeted.
        defences: Functions in front of the targets by name, see `src.defences.Defence`; the targets
            are also evaluated without a defence.
        repeats: Number of draws from a randomised defence; the majority decides.
        protocol: Images that form the denominator, see `rates`.
        controls: Also evaluate random-sign noise and shuffled perturbations.
        ensemble: Quantity that an ensemble averages: `logits`, `probabilities` or `loss`.
        index: Numbers of the images, increasing, shape (N,); they seed each image's random draws.
            None: 0, 1, ...
        fit_images: Training images for fitted attacks, such as `uap`: a tuple of images, true
            classes and, for `target_labels` of several classes, target labels; same formats as
            `images` and `labels`.
        class_names: Different names of the C classes, in the order of the logits, for pages and
            pictures; None: their numbers.
        seed: Seed for attacks, target labels, noise and defences.
        batch_size: Images per batch; None: 50 on a CPU, 1,000 on a GPU.
        progress_bar: Show the progress in batches.
        store: Folder in which the jobs are saved, for `load_sweep`, `src.report` and `src.table`.
            It must be empty or come from an earlier call, whose jobs are replaced. None: nothing is
            saved.

    Returns:
        Results as from `load_sweep`, with the variant float32 and, with `controls`, the controls.

    Raises:
        ValueError: A module, attack or argument cannot be used, or `store` holds other files.

    Examples:
        >>> results = transfer({"a": a}, {"a": a, "b": b}, images, labels, attacks=["mi"])
        ... # doctest: +SKIP
    """
    rule = target_labels if isinstance(target_labels, str | None) else "data"
    classes = None if isinstance(target_labels, str) else target_labels
    keywords = {key: value for key, value in (("norm", norm), ("target_label", rule)) if value}
    crafted, functions = _attacks(attacks, keywords), _defences(defences)
    typed: Mapping[str, Any] = attacks if isinstance(attacks, Mapping) else {}
    sources, targets = loaded(sources, targets)
    inputs = Inputs(sources, targets, images, labels, classes, index, fit_images, class_names)
    plain: dict[str, Any] = {
        "defence": {
            name: {**described(function, "function"), "called": name, "repeats": repeats}
            for name, function in functions.items()
        },
        "defences": tuple(functions),
        "epsilon": {
            "below_one": True,
            "grid": _levels("eps", eps),
            "reference": None if reference is None else _levels("reference", reference)[0],
        },
        **{"protocol": protocol, "controls": controls, "ensemble": ensemble, "seed": int(seed)},
        "dataset": {"name": "images"},
        "report": {"name": "default"} if store else {"name": "none", "examples": 0},
        "trainer": {
            **inputs.trainer,
            "batch_size": "auto" if batch_size is None else int(batch_size),
            "progress_bar": progress_bar,
        },
    }
    planned, call = list[Planned](), uuid4().hex
    with TemporaryDirectory() as temporary:
        # Only the images of pictures are stored.
        plain |= {"cache": {"dir": temporary, "images_mb": 0}}
        try:
            for part, attack in crafted:
                for source in sources:
                    stated = Settings(attack=part, **plain, **inputs.settings(source))
                    job = for_device(at_cost(stated, typed.get(part.name, ())))
                    function = attack_function(job.attack) if part.cost else attack
                    planned.append(make_planned(job, function, functions, call=call))
        except ValidationError as error:
            raise ValueError(refusal(error)) from None
        return results_of(_run_all(planned, inputs, Rows(Path(temporary)), store))


def _attacks(attacks: Any, keywords: Mapping[str, Any]) -> list[tuple[AttackSettings, Attack]]:
    """Return the settings and functions of attacks, which are names, or a mapping from names."""
    attacks = [attacks] if isinstance(attacks, str) or callable(attacks) else attacks
    attacks = attacks if isinstance(attacks, Mapping) else {name: {} for name in attacks}
    valid = [
        isinstance(name, str) and (isinstance(attack, Mapping) or callable(attack))
        for name, attack in attacks.items()
    ]
    if not valid or not all(valid):
        raise ValueError(
            "attacks must be names of attacks, or a mapping from names to keywords or functions."
        )
    return [craft(name, attack, keywords, "attacks") for name, attack in attacks.items()]


def _defences(defences: Any) -> dict[str, Defence]:
    named = {} if defences is None else defences
    is_valid = isinstance(named, Mapping) and NO_DEFENCE not in named
    if not is_valid or not all(map(callable, named.values())):
        text = f"defences must be a mapping from names, except {NO_DEFENCE}, to functions."
        raise ValueError(text)
    return dict(named)


def craft(
    name: str, attack: Any, keywords: Mapping[str, Any], key: str
) -> tuple[AttackSettings, Attack]:
    """Return the settings and the function of an attack.

    Args:
        name: Its name.
        attack: Keywords that differ from those of the attack of this name, or an attack as in
            `adapt`.
        keywords: Norm and rule of the target labels, if they are set.
        key: Argument that has the name, for messages.

    Raises:
        ValueError: The name is not valid, or the attack cannot be used.
    """
    if isinstance(attack, Mapping):
        settings = attack_settings(name, {**attack, **keywords})
        return settings, attack_function(settings)
    function = adapt(attack)
    face = signature(function).parameters
    if "target_label" in keywords and "targeted" not in accepted(function):
        raise ValueError(f"{key}: {name} has no argument `targeted`, which target_labels need.")
    if "norm" in face:
        default = face["norm"].default
        usual = "linf" if default is Parameter.empty else default
        function = partial(function, norm=keywords.get("norm", usual))
    words = {
        word: value if isinstance(value, int | float | str | None) else repr(value)
        for word, value in getattr(function, "keywords", {}).items()
    }
    # Two functions may have the same name; their names in this call differ.
    called = {**described(attack, "function"), "called": name}
    return crafted_settings(name, {**words, **keywords, **called}, key), function


def _run_all(
    planned: Sequence[Planned], inputs: Inputs, cache: Rows, store: str | Path | None
) -> list[FinishedJob]:
    """Run the jobs of a call in their order; with a store, each has a folder in it."""
    names = [f"{job.settings.attack.name}-{job.settings.source_name}" for job in planned]
    folders = take_store(Path(store), names) if store else [None] * len(names)
    jobs = zip(planned, folders, strict=True)
    try:
        return [_run(job, inputs, cache, folder) for job, folder in jobs]
    except AttackError as error:
        raise error.with_traceback(None) from error.__cause__  # without the program's own lines


def _run(planned: Planned, inputs: Inputs, cache: Rows, folder: Path | None) -> FinishedJob:
    """Run a job, and write its files if it has a folder."""
    evaluation = Evaluation(inputs.make_context(planned), cache)
    finished = finish_job(planned, evaluation, folder)
    assert finished is not None
    for alarm in finished.alarms:
        log.warning("%s: %s", finished.record.label, explained(alarm))
    if folder is not None:
        write_results(evaluation, finished, choose_pictures(evaluation, finished))
    return finished


def _levels(key: str, eps: ArrayLike | Tensor) -> list[float]:
    """Convert budgets from [0, 1] units to units of 1/255."""
    budgets = np.ravel(np.asarray(eps.cpu() if isinstance(eps, Tensor) else eps, np.float64))
    if wrong := [budget for budget in budgets.tolist() if not 1e-6 <= 255 * budget <= 255]:
        raise ValueError(f"{key}={wrong[0]:g} must be from 1e-6 / 255 to 1, such as 8 / 255.")
    return [round(255 * budget, 6) for budget in budgets.tolist()]  # float32 has seven digits
