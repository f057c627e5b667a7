"""Settings of composed configs, and refusals by kind."""

import re
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.config import resolvers
from src.config.command import Command
from src.config.compose import compose_words
from src.config.errors import REFUSALS, explain
from src.config.fields import distinct
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
GROUPS = {
    group.name: [option.stem for option in sorted(group.glob("[!_]*.yaml"))]
    for group in sorted(resolvers.CONF.iterdir())
    if group.is_dir() and group.name not in ("hydra", "model", "attack", "defence", "panel")
}
EXPERIMENTS = [name for name in GROUPS.pop("experiment") if name not in PROTOCOLS]
TOGETHER = [
    tuple(f"{group}={names[place % len(names)]}" for group, names in GROUPS.items())
    for place in range(max(map(len, GROUPS.values())))
]
"""Options of all groups but the experiments, each of them at least once."""
ATTACKS = ("bim", "none", "mi_di_ti")
MODELS = sorted(path.stem for path in (resolvers.CONF / "model").glob("[!_]*.yaml"))


def read(*words: str, extra: Path | None = None) -> Settings:
    """Compose a command line as Hydra does, and read it."""
    config = compose_words(resolvers.CONF, words, extra)
    settings = read_job(config, config.hydra)
    if settings.attack.kind == "crafted":
        attack_function(settings.attack)
    return settings


def test_settings_hold_what_the_config_says(tmp_path):
    weights = tmp_path / "file.pt"
    weights.touch()
    settings = read(
        *("attack=bim", "attack.steps=3", "attack.target_label=next", "source=resnet50"),
        *("targets=[vgg16]", "epsilon.grid=[8,0,0.25]", f"model.vgg16.weights={weights}"),
        *("dataset=image_folder", "dataset.root=/some/where", "n_images=7", "training.epochs=2"),
    )
    assert (settings.source_name, settings.targets) == ("resnet50", ("vgg16",))
    assert settings.budgets == (0.25, 8.0) and settings.reference == 8
    assert settings.models == ("resnet50", "vgg16") and set(settings.model) == {*settings.models}
    assert settings.attack.settings["steps"] == 3 and settings.attack.target_label == "next"
    assert settings.attack.label == "bim (steps=3, target_label=next)"
    assert settings.n_images == 7 and settings.model["vgg16"].weights == str(weights)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "budgets"),
    [
        (["epsilon.grid=[0.25,4]"], (0.25, 4)),
        (["epsilon.grid=[0.3,1]"], (0.3, 1)),
        (["epsilon.grid=[0.3,0.1]", "epsilon.below_one=true"], (0.1, 0.3)),
        (["epsilon.grid=[0.03]", "epsilon.below_one=true", "epsilon=fine"], (0.03,)),
    ],
)
def test_budgets_below_one_are_in_255ths_beside_larger_ones_or_if_the_key_says_so(words, budgets):
    assert read("attack=fgsm", *words).budgets == budgets


def test_a_tilde_in_a_config_file_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = read("cache.dir='~/cache'", "attack=saved", "attack.path='~/set'")
    assert settings.cache.dir == str(tmp_path / "cache")
    assert settings.attack.saved.path == str(tmp_path / "set")


# Keys that are left open, and what they become.
RULES: list[tuple[str, dict[str, Any]]] = [
    ("", {"targets": DEFAULT_TARGETS, "reference": 8, "protocol": "joint", "storage": "float32"}),
    ("source=resnet18", {"targets": (*DEFAULT_TARGETS, "resnet18")}),
    ("epsilon.grid=[1,0,2]", {"budgets": (1, 2), "reference": 2}),
    ("epsilon.reference=4", {"budgets": (1, 2, 4, 8, 12, 16), "reference": 4}),
    ("experiment=demo epsilon.grid=[8,2]", {"budgets": (2, 8), "reference": 8}),
    ("experiment=demo epsilon.grid=[8,4]", {"budgets": (4, 8), "reference": 4}),
    ("attack=none targets=vit", {"targets": ("vit",), "budgets": (), "protocol": "all"}),
    ("attack=saved attack.path=x", {"protocol": None, "storage": None, "variants": ()}),
    ("save_adversarial=true", {"storage": "uint8", "variants": ("float32",)}),
    ("variants=uint8", {"storage": "float32", "variants": ("uint8",)}),
]


@pytest.mark.parametrize(("words", "expected"), RULES, ids=[words for words, _ in RULES])
def test_what_is_left_open_has_a_rule(words, expected):
    settings = read(*words.split())
    assert {key: getattr(settings, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["trainer=cpu"], "quick"),
        (["trainer=gpu"], "full"),
        (["training.device=gpu", "trainer=cpu"], "full"),  # as a sweep hands its choice on
    ],
)
def test_the_device_chooses_the_recipe(words, recipe):
    chosen = read(*words).training
    assert chosen.model_copy(update={"device": None}) == read(f"training={recipe}").training
    assert chosen.device == {"quick": "cpu", "full": "gpu"}[recipe]
    assert read(*words, "training.epochs=7").training.epochs == 7


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("usable", [False, True])
def test_a_gpu_is_one_that_the_system_knows_and_torch_can_use(monkeypatch, tmp_path, known, usable):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(resolvers, "GPU_FILES", (tmp_path if known else tmp_path / "absent",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: usable)
    assert read("trainer=default").training.device == ("gpu" if known and usable else "cpu")


@pytest.mark.parametrize(
    "words",
    [
        *TOGETHER,
        *([f"experiment={name}"] for name in EXPERIMENTS),
        *([f"attack={name}"] for name in ATTACKS),
    ],
    ids=" ".join,
)
def test_every_option_makes_a_job(words):
    needed = ["dataset.name=SVHN"] if "dataset=torchvision" in words else []
    assert read(*words, *needed)


@pytest.mark.slow
def test_a_published_protocol_lists_the_weights_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as refusal:
        read("experiment=zhao2021")
    planned = read("experiment=zhao2021", "plan=only").model.values()
    fetched = [model.missing for model in planned]
    Path("weights").mkdir()
    for file in fetched:
        assert file in str(refusal.value)
        Path(file).touch()
    for one in read("experiment=zhao2021").model.values():
        tag = one.network.get("model_name")
        assert one.url and (tag is None or (tag in one.url and "." in tag))


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


def test_the_competition_knows_its_files():
    dataset = read("dataset=nips17").dataset
    known = dataset.model_extra
    assert (dataset.image_size, dataset.num_classes, known["first_label"]) == (299, 1000, 1)
    assert known["target_column"] == "TargetClass" and "images.csv" in known["csv"]


@pytest.mark.parametrize(
    "words",
    [
        *("cifar10", "cifar10_mini", "image_csv", "image_folder", "nips17", "imagenet"),
        "torchvision dataset.name=SVHN",
    ],
)
def test_every_data_set_takes_a_list_of_images(words):
    assert (
        read(*f"dataset={words} dataset.images=images.csv".split()).dataset.images == "images.csv"
    )


def test_the_catalogue_lists_every_model_file():
    names = ["model.timm.network.model_name=x", "model.torchvision.network.name=x"]
    names += ["model.answers.network.file=x"]
    settings = read(f"targets=[{','.join(MODELS)}]", "source=vit", *names)
    assert {*settings.models} == {*MODELS}
    complete = [name for name in MODELS if name not in ("answers", "timm", "torchvision")]
    with pytest.raises(ValueError, match=", ".join(complete)):
        read("source=nope")


@pytest.mark.slow
def test_the_label_names_the_settings_that_differ_from_the_functions(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nattack: {steps: 20, loss: cross_entropy}\n"
    (tmp_path / "experiment" / "long.yaml").write_text(text)
    words = ["attack.target_label=next", "attack.norm=l2", "attack.decay=0.5"]
    label = read("attack=bim", "experiment=long", *words, extra=tmp_path).attack.label
    assert label == "bim (steps=20, norm=l2, target_label=next, decay=0.5)"
    assert read("attack=bim", "attack.steps=10").attack.label == "bim"
    assert read("attack=si_ni_di_ti").attack.label == "si_ni_di_ti"
    assert read("attack=llc").attack.label == "llc (target_label=least_likely)"


@pytest.mark.parametrize(
    "jobs", [pytest.param("files and values", marks=pytest.mark.slow), "interpolations"]
)
def test_jobs_of_a_sweep_are_what_hydra_composes(jobs):
    words = {
        "files and values": [
            "attack=fgsm,bim",
            "source=vit,[vit,vgg16]",
            "~ensemble=logits",
            "+x=1,2",
        ],
        "interpolations": ["n_images=5,7", "trainer=cpu,gpu", "dataset=image_folder", "seed=1"],
    }[jobs]
    loader = Loader()
    config = loader.load_configuration("config", words, RunMode.MULTIRUN)
    found = [loader.load_sweep_config(config, job) for job in split_jobs(loader, words)]
    assert len(found) == len({str(job.hydra.overrides.task) for job in found}) >= 4
    for job in found:
        alone = compose_words(resolvers.CONF, Command.of(job.hydra).words)
        assert job.hydra.overrides == alone.hydra.overrides
        assert job.hydra.job.override_dirname == alone.hydra.job.override_dirname
        assert job.hydra.runtime.choices == alone.hydra.runtime.choices
        one, two = (
            OmegaConf.to_container(OmegaConf.masked_copy(each, [*set(each) - {"hydra"}]))
            for each in (job, alone)
        )
        assert one == two


def test_a_long_list_is_not_compared_pair_by_pair():
    compared = 0

    class Value:
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = object.__hash__

    values = tuple(Value() for _ in range(200))
    assert distinct(values) == values
    assert compared < 400


# A wrong word of each kind, and what its refusal names: the key, the value or the way out.
REFUSED = [
    ("epsilon.grid=nan", "epsilon.grid.*nan"),
    ("variants=[gif]", "variants.*gif.*float32.*uint8"),
    ("targets=[vgg16,vgg16]", "targets.*vgg16.*more than once"),
    ("targets=[]", "targets .*empty"),
    ("source=vgg61", "source.*vgg61.* Did you mean vgg16"),
    ("source=clean +model.clean={_target_:x}", "source.0: .clean. is not a valid name"),
    ("source=average +model.average={_target_:x}", "source.0: .average. is not a valid name"),
    ("~dataset n_images=10", "dataset"),
    ("model.vgg16.meen=[0]", "model.vgg16.meen.*Did you mean mean"),
    ("model.vgg16.weights=gone.pt", "model.vgg16.weights.*gone.pt is not a file"),
    ("epsilon.grid=8/255", "epsilon.grid.*write 8"),
    ("epsilon.grid=[0,0.0314,0.001]", r"epsilon.grid.*1/255.* 0.255, 8\?"),
    ("epsilon.grid=[0.1,0.2,0.3]", r"25.5, 51, 76.5\?.*epsilon.below_one=true"),
    ("epsilon.grid=[0,0.5]", r"epsilon.grid.*127.5\?.*epsilon.below_one=true"),
    ("epsilon.reference=5", "epsilon.reference=5 .*1, 2, 4, 8, 12, 16"),
    ("attack.norm=l1", "attack.norm=l1.*linf.*l2"),
    ("attack.kernel_size=4", "attack.kernel_size: 4 is even"),
    ("attack=fgsm attack.steps=5", "attack.steps: attack=fgsm .*loss"),
    ("attack.stepz=3", "attack.stepz: attack=bim .*Did you mean steps"),
    ("attack.seeds=3", "attack.seeds .*trainer.gradient_batch"),
    ("attack.transforms=[3]", "attack.transforms.0=3"),
    ("attack.transforms=[{_target_:src.attacks.DiverseInput,chance:1}]", "attack=bim.*chance"),
    ("attack._target_=src.attacks.gone", "attack=bim.*src.attacks.gone"),
    # what an attack's file does not state
    (
        "attack=bim attack.about.targeted=false attack.target_label=next",
        "^attack.target_label=next: attack=bim ",
    ),
    ("attack=illc attack.target_label=null", "^attack.target_label=null: attack=illc .*next"),
    ("attack=rfgsm attack.norm=l2", "^attack.norm=l2: attack=rfgsm .*linf$"),
    ("attack=bim attack.about.members=2", r"^source=vgg16: attack=bim .* 2 models.*\[a,b\]"),
    ("attack=bim attack.name=mi", "^attack.name=mi: .* bim"),
    ("attack=none source=vgg16", "source .*attack=none"),
    ("attack=saved", "attack.path"),
    ("attack=saved attack.path=x save_adversarial=true", "save_adversarial=true .*attack=saved"),
    (
        "diagnostics.iterations=[1,20]",
        "^diagnostics.iterations=20: attack=bim .* 10 .*attack.steps",
    ),
    ("diagnostics.iterations=[0]", "diagnostics.iterations.0"),
    # what Hydra itself cannot compose
    ("attack=fgsmm", "attack/fgsmm'. Did you mean fgsm"),
    ("attack=quite_new", "attack/quite_new'. attack has admix"),
    ("attack=MI-FGSM", "attack/MI-FGSM'. Did you mean mi\\?$"),
    ("trainer.batchsize=4", "trainer.batchsize.* Did you mean trainer.batch_size"),
    ("batch_size=4", "batch_size.* Did you mean train.*.batch_size"),
    ("attack=fgsm,bim", "attack=fgsm,bim"),
    ("eps=8", "eps.*epsilon.grid"),
    ("experiment=demo epsilon.grid=[8] epsilon.reference=4", "epsilon.reference=4 .*budgets 8"),
    ("seed=${nope}", "seed: .*nope"),
    ("trainer.num_workers=é", "^trainer.num_workers=é: .*quote texts"),
    ("source", "^source: .*KEY=VALUE"),
    ("model.vgg61.weights=x.pt", "^model.vgg61.weights: .* Did you mean vgg16"),
    # what only other files include
    ("source=_small_network", "^source: .*_small_network.*_small"),
    ("targets=[vgg16,_network_with_stem]", "^targets: .*_network_with_stem.*vgg_small"),
    ("dataset=gone", "cifar10_mini, huggingface"),
    (f"model.vgg16.input_size=1{23 * '0'}", "^model.vgg16.input_size=10+: .*4096"),
]


# Keys and options of earlier versions, and what to type instead.
REPLACED = {
    "cache_dir=x": "cache.dir",
    "store.images_mb=1": "cache.images_mb",
    "store.total_gb=1": "cache.total_gb",
    "plan=true": "plan=only",
    "plan_tflops=1": "a job on that machine",
    "plan.tflops=1": "a job on that machine",
    "max_hours=1": "plan.max_hours",
    "dataset.n_images=1": "n_images",
    "+dataset.n_images=1": "n_images",
    "dataset=saved": "attack=saved",
    "tracking.name=mlflow": "tracking=mlflow",
    "tracking.system_metrics=true": "a monitor of your machine",
    "+tracking.system_metrics=false": "a monitor of your machine",
    "dataset=cifar10,saved": "attack=saved",
    "attack.fit_first_label=0": "attack.fit_images=FOLDER",
    "training.noise=4": r"model\.NAME\.weights",
    "training.keep_epochs=[1]": r"model\.NAME\.weights",
    "report.related=exclude": "--no-related",
    "report.figures=true": r"python -m src\.figure",
    "figures=true": r"python -m src\.figure",
}


@pytest.mark.parametrize("word", REPLACED)
def test_an_earlier_key_is_refused_and_the_new_one_named(word):
    with pytest.raises(ValueError, match=rf"^\S+ is replaced by {REPLACED[word]}\b"):
        read(word)


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("cache_dir: x", "cache.dir"),
        ("store: {images_mb: 1}", "cache.images_mb"),
        ("plan: true", "plan=only"),
        ("max_hours: 1", "plan.max_hours"),
        ("dataset: {n_images: 1}", "n_images"),
        ("report: {figures: false}", r"python -m src\.figure .*"),
    ],
)
def test_an_earlier_key_in_a_file_is_refused_and_the_new_one_named(tmp_path, line, new):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "old.yaml").write_text(f"# @package _global_\n{line}\n")
    with pytest.raises(ValueError, match=rf"^\S+ is replaced by {new}\.$"):
        read("experiment=old", extra=tmp_path)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("targets: [vgg16, no]", "targets"),
        ("source: off", "source"),
        ("defences: [none, on]", "defences"),
        ("dataset: {name: yes}", r"dataset\.name"),
        ("dataset: {class_names: [no, yes]}", r"dataset\.class_names"),
        ("training: {attack: no}", r"training\.attack"),
    ],
)
def test_a_word_that_yaml_reads_as_a_truth_value_is_to_be_quoted(tmp_path, line, key):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{line}\n")
    with pytest.raises(ValueError, match=rf"^{key}: (True|False) is YAML's word for .* quote it"):
        read("experiment=own", extra=tmp_path)


def test_a_protocol_that_yaml_reads_as_a_truth_value_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\nprotocol: no\n")
    with pytest.raises(ValueError, match=r"^protocol=False: .*'joint'"):
        read("experiment=own", extra=tmp_path)


@pytest.mark.parametrize(("group", "value"), [("attack", "mi"), ("epsilon", "no"), ("plan", "no")])
def test_a_group_in_a_file_is_an_override_in_its_defaults(tmp_path, group, value):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{group}: {value}\n")
    with pytest.raises(ValueError, match=rf"^{group}=(mi|False): .*override /{group}"):
        read("experiment=own", extra=tmp_path)


@pytest.mark.parametrize(("words", "named"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused_in_one_sentence(words, named):
    own = [] if "attack=" in words else ["attack=bim"]
    with pytest.raises(REFUSALS) as caught:
        read("dataset=cifar10_mini", *own, *words.split(" "))
    sentence = explain(caught.value)
    assert re.search(named, sentence) and "\n" not in sentence, sentence


def test_a_launcher_that_is_not_installed_names_its_extra():
    installed = {each.name for each in distributions()}
    for name in ("submitit_slurm", "slum"):
        told = explain(MissingConfigException("no file", f"hydra/launcher/{name}", ["basic"]))
        missing = name != "slum" and "hydra-submitit-launcher" not in installed
        assert ("[submitit]" in told) == missing and ("basic" in told) != missing


def test_a_file_that_is_no_yaml_is_named(run_job, workspace, capfd):
    text = "# @package model.coarse\na: [1\nb: 2"
    (workspace / "conf" / "model" / "coarse.yaml").write_text(text)
    assert run_job() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "coarse.yaml" in line


@pytest.mark.parametrize(
    ("words", "device", "side", "images"),
    [
        (["trainer.batch_size=1000"], "cuda", 32, 1000),
        (["trainer.batch_size=1000"], "cuda", 64, 1000),
        (["trainer.batch_size=1000"], "cuda", 224, 81),
        (["trainer.batch_size=1000"], "cuda", 5000, 1),
        (["trainer.batch_size=20"], "cuda", 32, 20),
        (["trainer.batch_size=1000", "targets=[vit]"], "cuda", 32, 81),  # its input_size is 224
        (["trainer.batch_size=1000", "source=vit"], "cuda", 32, 81),
        (["trainer.batch_size=1000", "trainer.gradient_batch=300"], "cuda", 224, 300),
        (["trainer.batch_size=50"], "cpu", 32, 50),
        (["trainer.batch_size=50"], "cpu", 224, 32),
        (["trainer.batch_size=50", "targets=[vit]"], "cpu", 32, 32),
    ],
)
def test_gradient_batches_shrink_with_the_pixels_of_the_largest_network(
    words, device, side, images
):
    settings = read("attack=bim", "source=resnet50", "targets=[resnet50]", *words)
    assert settings.gradient_batch(device, side) == images
