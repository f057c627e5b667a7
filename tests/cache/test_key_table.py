"""A table of changes to a job: each changes the keys that it names, and no others."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from src.attacks import mi
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.measure.predictions import Clean
from src.run.check_job import check_job, open_job
from src.run.models import ModelPool, Trainings
from src.run.stages import Model, parts_of
from src.tracking import Tracker
from src.utils.model_names import ModelRef
from tests.conftest import TINY

JOB = [
    *("attack=uap", "source=coarse", "targets=[coarse,net]", "defences=[jpeg]"),
    *("dataset=cifar10_mini", "n_images=6"),
    *("epsilon.grid=[2,8]", "trainer=cpu", "trainer.batch_size=4", "training=quick"),
    *("attack.fit_n_images=20", "dataset.n_train=40", "tracking=none"),
]
ALL = "clean attack model defence fit job"
CHANGES = {
    # Settings that decide no numbers, or that only choose images and tables.
    "trainer.batch_size=3": "",
    "trainer.num_workers=1": "",
    "trainer.gradients_per_batch=9": "",
    "trainer.progress_bar=false": "",
    "training.evaluate_on=7": "",
    "+training.device=cpu": "",
    "model.coarse.expected_accuracy=0.3": "",
    "clean_accuracy_check.tolerance=0.5": "",
    "protocol=all": "",
    "epsilon.reference=2": "",
    "rerun=true": "",
    "cache.images_mb=1": "",
    "cache.dir=elsewhere": "",
    "report.examples=1": "",
    "save_adversarial=true": "job",
    "n_images=5": "job",
    "dataset.seed=1": "job",
    "epsilon.grid=[2,4,8]": "job",
    "storage=uint8": "job",
    "variants=[uint8]": "job",
    "controls=true": "job",
    "diagnostics.tables=[spectra]": "job",
    "targets=[coarse]": "job",
    # The arithmetic.
    "trainer.precision=bf16-mixed": "clean attack job",
    "trainer.fold_batch_norms=false": "clean attack job",
    "trainer.gradient_batch=3": "attack job",
    "trainer.attack_precision=bf16": "attack fit job",
    # The attack.
    "attack.fit_step=0.3": "attack fit job",
    "attack.norm=l2": "attack fit job",
    "attack.target_label=next": "attack fit job",
    "ensemble=loss": "attack fit job",
    "source=fine": "attack fit job",
    "source_defence=jpeg": "attack fit job",
    "seed=1": "attack defence fit job",
    # Models and defences.
    "model.coarse.mean=[0.4,0.5,0.5]": ALL,
    "+model.coarse.channels=BGR": ALL,
    "model.coarse.weights=other.safetensors": ALL,
    "model.net.std=[0.2,0.2,0.2]": "weights job",
    "defence.jpeg.quality=50": "defence job",
    "defence.jpeg.offset=1": "defence job",
    # Trainings, whose images and augmentation are also those of fits.
    "training.epochs=9": "weights job",
    "training.learning_rate=0.2": "weights job",
    "training.n_images=30": "weights job",
    "training.seed=5": "weights job",
    "training.flip=false": "weights attack fit job",
    "dataset.n_train=39": "weights attack fit job",
}
PROGRAM = {
    "src.cache.keys.program_digest": (lambda: "edited", "clean attack job"),
    "src.cache.keys.version": (lambda name: f"new {name}", "clean attack job"),
    "src.cache.keys.FITTING": (99, "attack fit job"),
    "src.cache.keys.TRAINING": (99, "weights job"),
}


@pytest.fixture
def keys(workspace: Path, tiny_weights: Path) -> Callable[..., dict[str, str]]:
    """A function that returns the keys of a job of two linear models by name."""
    untrained = TINY.format(name="net", pool=8, features=48, weights="null")
    (workspace / "conf/model/net.yaml").write_text(untrained)
    content = (tiny_weights / "coarse.safetensors").read_bytes()
    (workspace / "other.safetensors").write_bytes(content[:-4] + b"\0\0\0\x3f")
    pool = ModelPool()

    def compute(*words: str) -> dict[str, str]:
        config = compose_words(CONF, [*JOB, *words], "conf")
        planned = check_job(read_job(config, config.hydra), pool.sets)
        planned, job = open_job(planned, pool.sets)
        built, untrained = pool.build(planned, job.images), pool.untrained(planned, job.images)
        trainings = Trainings(planned.settings, job.images, pool.sets)
        trained = [name for name in planned.settings.models if name not in untrained]
        models = pool.train(planned, job.images, trained, Tracker())
        for name, file in trainings.files({name: built[name] for name in untrained}).items():
            models[name] = Model(built[name], "", {"file": file.name})
        job = replace(job, models=models)
        name = ModelRef.parse("coarse")
        clean = parts_of(job, [Clean("clean images")])
        place = next(part.place for part in clean if part.target == name)
        file = trainings.file("net", built["net"]) if "net" in built else None
        return {
            "clean": " ".join(place),
            "attack": job.attack_key,
            "model": job.models["coarse"].key,
            "defence": job.target_keys["coarse@jpeg"],
            **({"fit": job.fit_key(0.0)} if job.attack.fitted else {}),
            "job": job.key,
            **({"weights": file.name} if file else {}),
        }

    return compute


def test_what_is_chosen_by_a_seed_for_tables_is_in_the_jobs_key(keys):
    """All images, whatever the seed; it still chooses the diagnosed ones and the pairs."""
    mi = ["controls=true", "attack=mi", "~attack.fit_n_images"]  # uap has one for all images
    for more in (mi, ["diagnostics={tables:[visibility],n_images:3}"]):
        words = ["n_images=null", "dataset.n_test=6", *more]
        assert {*changed(keys(*words), keys(*words, "dataset.seed=1"))} == {"job"}


def test_parts_that_a_file_adds_may_mix_in_other_images(keys):
    """`mi` states that it does not mix, and a file that is based on it inherits this."""
    admix = "+attack.transforms=[{_target_: src.attacks.Admix}]"
    job = ["attack=mi", "~attack.fit_n_images", "n_images=null", "dataset.n_test=6"]
    other = [*job, "dataset.seed=1"]
    assert not {*changed(keys(*job), keys(*other))}
    assert {*changed(keys(*job, admix), keys(*other, admix))} == {"attack", "job"}
    own = "attack._target_=src.attacks.admix"
    assert {*changed(keys(*job, own), keys(*other, own))} == {"attack", "job"}


@wraps(mi)
def wrapped(*arguments: Any, **keywords: Any) -> Tensor:
    """An attack of one's own to which `wraps` copies what `mi` states."""
    return mi(*arguments, **keywords)


def test_what_wraps_copies_is_no_statement(keys):
    job = ["attack=mi", "~attack.fit_n_images", "n_images=null", "dataset.n_test=6"]
    job.append(f"attack._target_={__name__}.wrapped")
    assert {*changed(keys(*job), keys(*job, "dataset.seed=1"))} == {"attack", "job"}
    assert {*changed(keys(*job), keys(*job, "trainer.batch_size=3"))} == {"attack", "job"}


def changed(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    return (name for name in after if before[name] != after[name])


def test_each_setting_changes_exactly_these_keys(keys):
    before = keys()
    found = {word: {*changed(before, keys(word))} for word in CHANGES}
    assert found == {word: {*names.split()} for word, names in CHANGES.items()}


@pytest.mark.slow
def test_code_and_libraries_change_exactly_these_keys(keys, monkeypatch):
    before, found = keys(), {}
    for place, (value, _) in PROGRAM.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, value)
            found[place] = {*changed(before, keys())}
    assert found == {place: {*names.split()} for place, (_, names) in PROGRAM.items()}
