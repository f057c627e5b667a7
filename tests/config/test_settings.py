"""Settings of composed configs, and refusals by kind."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.config import resolvers
from src.config.command import Command
from src.config.compose import compose_words
from src.config.hydra_internals import Loader, split_jobs
from src.config.read import read_job
from src.config.sections import DEFAULT_TARGETS
from src.config.settings import Settings
from src.run.check_job import attack_function

PROTOCOLS = {  # attack, budget, length and number of steps, image size, targets
    "transferattack": ("mi", 16, 1.6, 10, 224, 8),
    "tabench": ("bim", 8, 1, 100, 224, 10),
    "zhao2021": ("logit_mi_di_ti", 16, 2, 300, 299, 3),
}
OPTIONS = [
    f"{file.parent.name}={file.stem}"
    for file in sorted(resolvers.CONF.glob("*/[!_]*.yaml"))
    if file.parent.name not in ("hydra", "model", "attack", "defence", "panel", "dataset")
    and file.stem not in PROTOCOLS
]
"""Options of groups; `tests.data.test_sources` reads those of `dataset`."""
MISSING = "model.fine.weights=x.pt ++model.fine.url=u dataset=image_folder dataset.root=gone"
UNTARGETED = "attack=bim attack.about.targeted=false"


def read(*words: str, extra: Path | None = None) -> Settings:
    """Compose a command line as Hydra does, and read it."""
    config = compose_words(words, extra)
    settings = read_job(config, config.hydra)
    if settings.attack.kind == "crafted":
        attack_function(settings.attack)
    return settings


def test_the_audit_takes_a_kernel_that_fits_its_images():
    for words, size in (("", 3), ("dataset=cifar10", 3), ("dataset=nips17", 15)):
        ti = read(*f"experiment=audit attack=ti source=vgg_small targets=vit {words}".split())
        assert ti.attack.settings["kernel_size"] == size
    assert "kernel_size" not in read("experiment=audit", "attack=di", "targets=vit").attack.settings


# Keys that are left open, and what they become.
RULES: list[tuple[str, dict[str, Any]]] = [
    ("", {"targets": DEFAULT_TARGETS, "reference": 8, "protocol": "joint", "storage": "float32"}),
    ("source=resnet18", {"targets": (*DEFAULT_TARGETS, "resnet18")}),
    ("epsilon.grid=[1,0,2]", {"budgets": (1, 2), "reference": 2}),
    ("epsilon.reference=4", {"budgets": (1, 2, 4, 8, 12, 16), "reference": 4}),
    ("experiment=demo epsilon.grid=[8,2]", {"budgets": (2, 8), "reference": 8}),
    ("experiment=demo epsilon.grid=[8,4]", {"budgets": (4, 8), "reference": 4}),
    ("experiment=demo ~epsilon.reference", {"reference": 8}),
    ("attack=none targets=vit", {"targets": ("vit",), "budgets": (), "protocol": "all"}),
    ("attack=saved attack.path=x", {"protocol": None, "storage": None, "variants": ()}),
    ("save_adversarial=true", {"storage": "uint8", "variants": ("float32",)}),
    ("variants=uint8", {"storage": "float32", "variants": ("uint8",)}),
    # budgets below one are in 1/255 beside larger ones, or if the key says so
    ("epsilon.grid=[0.25,4]", {"budgets": (0.25, 4)}),
    ("epsilon.grid=[0.3,1]", {"budgets": (0.3, 1)}),
    ("epsilon.grid=[0.3,0.1] epsilon.below_one=true", {"budgets": (0.1, 0.3)}),
]


@pytest.mark.parametrize(("words", "expected"), RULES, ids=[words for words, _ in RULES])
def test_what_is_left_open_has_a_rule(words, expected):
    settings = read(*words.split())
    assert {key: getattr(settings, key) for key in expected} == expected


def test_the_device_chooses_the_recipe(monkeypatch, tmp_path):
    for word, recipe in (("trainer=cpu", "quick"), ("training.device=gpu", "full")):
        chosen, wanted = read(word).training, read(f"training={recipe}").training
        assert chosen.model_copy(update={"device": None}) == wanted
    monkeypatch.setattr("sys.platform", "linux")
    for known, usable in product((False, True), repeat=2):  # to the system, and by torch
        file = tmp_path if known else tmp_path / "absent"
        monkeypatch.setattr(resolvers, "GPU_FILES", (file,))
        monkeypatch.setattr("torch.cuda.is_available", lambda usable=usable: usable)
        device = "gpu" if known and usable else "cpu"
        assert read("trainer=default").training.device == device


@pytest.mark.parametrize("word", [*OPTIONS, "attack=bim", "attack=none", "attack=mi_di_ti"])
def test_every_option_makes_a_job(word):
    assert read(word)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_published_protocol_is_as_published(name):
    settings = read(f"experiment={name}", "plan=only")
    attack, eps, step, steps, size, targets = PROTOCOLS[name]
    assert len(settings.targets) == targets
    assert (settings.attack.name, settings.budgets, settings.protocol) == (attack, (eps,), "all")
    given = settings.attack.settings
    assert given["steps"] == steps
    assert step == (given.get("step_size_255") or given["relative_step_size"] * eps)
    assert settings.dataset.image_size == size


def test_jobs_of_a_sweep_are_what_hydra_composes():
    words = ["attack=choice(fgsm,bim)", "source=vit,[vit,vgg16]", "trainer=cpu", "~ensemble=logits"]
    loader = Loader()
    config = loader.load_configuration("config", words, RunMode.MULTIRUN)
    found = [loader.load_sweep_config(config, job) for job in split_jobs(loader, words)]
    assert len({str(job.hydra.overrides.task) for job in found}) == len(found) == 4
    for job in found:
        alone = compose_words(Command.of(job.hydra).words)
        for key in ("overrides", "job.override_dirname", "runtime.choices"):
            assert OmegaConf.select(job.hydra, key) == OmegaConf.select(alone.hydra, key)
        one, two = (
            OmegaConf.to_container(OmegaConf.masked_copy(each, [*set(each) - {"hydra"}]))
            for each in (job, alone)
        )
        assert one == two


# Wrong words of each kind, and what the refusal names: the key, the value and the way on.
REFUSED: list[tuple[str, str]] = [
    # source and targets
    ("-m source=coarse,nonet", "^source.*nonet.*coarse, convnext, ((?!answers|timm,).)*$"),
    ("source=", "source.*vgg_small"),
    ("source=vgg61", "source.*vgg61.* mean vgg16"),
    ("source=coarse,fine", r"^source=coarse,fine: .* -m .*\[A,B\]"),
    ("source=[a,[3]]", r"^source=.*: 3 is .*\[\"2024\",\"a\"\]"),
    ("source=_small_network", "^source: .*_small_network.*_small"),
    ("targets=[]", "targets .*empty"),
    ("targets=[fine,fine]", "^targets.*fine.*more than once"),
    ("attack=bim attack.about.members=2", r"^source=coarse: attack=bim .* 2 models.*\[a,b\]"),
    ("attack=none source=fine", "source .*attack=none"),
    # models
    ("model.fine.meen=[0]", "model.fine.meen.*Did you mean mean"),
    ("model.fine.mean=[0.5]", "model.fine.mean.*3"),
    ("-m attack=fgsm,bim model.fine.mean=null", "^model fine: mean "),
    ("model.fien.weights=x.pt", "^model.fien.weights: .* mean fine"),
    ("model.fine.network._target_=a.b", "model.fine.network.*a.b"),
    ("+model.fine.network.bogus=1", "model.fine.*bogus"),
    ("model=[fine]", r"^model=\[fine\]: .*source or targets"),
    (MISSING, "x.pt.*dataset.root=gone .*plan=only"),
    # budgets
    ("epsilon.grid=8/255", "epsilon.grid.*write 8"),
    ("epsilon.grid=[0,0.0314,0.001]", r"epsilon.grid.*1/255.* 0.255, 8\?"),
    ("epsilon.grid=[0,0.5]", r"epsilon.grid.*127.5\?.*epsilon.below_one=true"),
    ("epsilon.reference=5", "epsilon.reference=5 .*0.5, 8"),
    ("-m epsilon=4,8", r"epsilon=4,8 .*default, fine.*'epsilon.grid=\[8\]'"),
    ("eps=8", r"eps.*'epsilon.grid=\[8\]'"),
    ("-m attack=fgsm_l2,fgsm save_adversarial=true", "epsilon.grid.*0.5.*=false"),
    # attacks
    ("attack=fgms", "attack/fgms'. Did you mean fgsm\\?$"),
    ("attack=fgsm,bim", "^attack=fgsm,bim.* -m "),
    ("attack=fgsm attack=bim,fgsm", "^attack .* -m attack=fgsm,bim,fgsm$"),
    ("+attack=bim", r"^\+attack=bim.* Type attack=bim$"),
    ("-m attack=fgsm,5", "attack=fgsm,5 .*option"),
    ("attack=bim attack.stepz=3", "attack.stepz: attack=bim .*Did you mean steps"),
    ("-m attack=fgsm,bim attack.stpes=5", "attack.stpes .*fgsm, bim.*steps"),
    ("attack=bim attack.norm=l1", "attack.norm=l1.*linf.*l2"),
    ("attack._target_=src.attacks.fgsm_l2 ~attack.norm", "attack.norm.*l2"),
    ("attack=bim attack.restarts=2", "attack.restarts=2 .*attack.random_start"),
    ("attack=bim attack.transforms=[{_target_:src.attacks.DiverseInput,chance:1}]", "chance"),
    ("attack=bim ++attack.layer=body", "^attack.layer=body .*attack.objective"),
    ("attack=ilpd ++model.coarse.feature_layer=body", "model coarse: feature_layer=body "),
    ("attack=bim attack._target_=src.attacks.gone", "attack=bim.*src.attacks.gone"),
    (f"{UNTARGETED} attack.target_label=next", "^attack.target_label=next: attack=bim "),
    ("attack=illc attack.target_label=null", "^attack.target_label=null: attack=illc .*next"),
    ("attack.target_label=data", "^attack.target_label=data.* no target labels"),
    ("attack=saved", "attack.path"),
    ("attack=saved attack.path=x save_adversarial=true", "save_adversarial=true .*=saved"),
    ("controls=true n_images=1", "^controls=true .* 2 images"),
    # other sections
    ("plan=true", "^plan=true is not .* only"),
    ("variants=[gif]", "variants.*gif.*float32.*uint8"),
    ("defences=[jpeg, none]", r"^defences=\[jpeg,: .* no blanks"),
    ("n_images=range(2,4)", r"n_images=range\(2,4\): .* -m "),
    ("cache.dir=/proc/x", "/proc/x"),
    ("seed=${nope}", "seed: .*nope"),
    *((f"~{key}", f"^{key}") for key in ("dataset", "seed", "source", "cache", "epsilon.grid")),
    # trainer
    ("batch_size=4", "batch_size.* mean train.*.batch_size"),
    ("trainer=[cpu,gpu]", r"trainer=\[cpu,gpu\].*trainer.KEY=VALUE"),
    ("-m attack=fgsm,bim trainer.devices=2", "trainer.devices.*trainer=default"),
    ("trainer.num_workers=é", "^trainer.num_workers=é: .*quote texts"),
    ("trainer.attack_precision=tf32", r"^trainer.attack_precision=tf32: .*\(cpu\)"),
    # words of Hydra
    ("source", "^source: .*KEY=VALUE"),
    ("attack=fgsm --nope -m", "--nope"),
    ("--config-name=mine", "--config-name.*--config-dir"),
    ("-m hydra.sweeper._target_=a.b", "sweeper"),
    ("-m hydra.sweep.subdir=x", "hydra.sweep.subdir.*hydra:job.num"),
    ("hydra.run.dir=", "hydra.run.dir"),
    ("-m attack=glob(zz*)", r"^attack=glob\(zz\*\): "),
    ("-m seed=range(0,1e12)", r"^seed=range\(0,1e12\): "),
]


@pytest.mark.parametrize(("words", "named"), REFUSED)
def test_a_refusal_is_a_line_with_the_key_the_value_and_the_way_on(
    run_job, workspace, capfd, words, named
):
    code = run_job(*words.split())
    out, err = capfd.readouterr()
    told, *_ = err.partition("admix, ")  # perhaps a list of all of them
    assert (code, out, err.count("\n")) == (2, "", 1) and len(told.split()) <= 60
    assert re.search(named, err.rstrip("\n"))
    assert {path.name for path in workspace.iterdir()} <= {"conf", "cache", "mlruns"}
    assert not list((workspace / "cache").glob("*"))


# Lines of a file that Hydra composes, and what the refusal names.
LINES = {
    "plan: true": "^plan=True: .*override /plan",
    "targets: [vgg16, no]": "^targets: False .*'no'",
    "source: off": "^source: False .*'no'",
    "dataset: {class_names: [no, yes]}": "^dataset.class_names: False .*'no'",
    "protocol: no": "^protocol=False: .*'joint'",
    "attack: mi": "^attack=mi: .*override /attack",
}


def test_a_line_of_a_file_is_refused_with_its_key_and_the_way_on(tmp_path):
    (tmp_path / "experiment").mkdir()
    for number, (line, named) in enumerate(LINES.items()):
        file = tmp_path / "experiment" / f"own{number}.yaml"
        file.write_text(f"# @package _global_\n{line}\n")
        with pytest.raises(ValueError, match=named):
            read(f"experiment=own{number}", extra=tmp_path)
