"""What a config means, and what it may not ask for."""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

import src.main
from src.config.errors import REFUSALS, explain
from src.config.read import read_job
from src.config.settings import Settings
from src.evaluation.configured_attack import forget_trials, try_attack

GROUPS = [
    (group.name, option.stem)
    for group in sorted(src.main.CONF.iterdir())
    if group.is_dir() and group.name not in ("hydra", "model", "attack")
    for option in sorted(group.glob("*.yaml"))
]
ATTACKS = [("attack", name) for name in ("bim", "none", "mi_di_ti")]
MODELS = sorted(path.stem for path in (src.main.CONF / "model").glob("*.yaml"))


@cache
def composed(*choices: str) -> DictConfig:
    return compose("config", list(choices), return_hydra_config=True)


def read(*words: str, extra: Path | None = None) -> Settings:
    """Compose a command line as Hydra does, each choice of groups once, and read it."""
    forget_trials()
    groups = {group.name for group in src.main.CONF.iterdir() if group.is_dir()}
    values = [word for word in words if word.split("=")[0] not in groups]
    choices = [word for word in words if word not in values]
    if extra:
        choices.append(f"hydra.searchpath=[file://{extra}]")
    with initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF)):
        config = deepcopy(composed(*choices))
        for word in OverridesParser.create().parse_overrides(values):
            if word.is_delete():
                with open_dict(config):
                    config.pop(word.key_or_group)
                continue
            added = word.is_add() or word.is_force_add()
            OmegaConf.update(config, word.key_or_group, word.value(), force_add=added)
        settings = read_job(config, config.hydra)
        tried = any(word.lstrip("+").startswith("attack") for word in words)
        if settings.attack.kind == "crafted" and (tried or not words):
            try_attack(settings.attack, settings.budgets)
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
    assert settings.dataset.n_images == 7 and settings.model["vgg16"].weights == str(weights)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "targets", "budgets", "reference", "protocol"),
    [
        ("", "vgg16 resnet50 inception", 6, 8, "joint"),
        ("source=resnet18", "vgg16 resnet50 inception resnet18", 6, 8, "joint"),
        ("epsilon.grid=[1,2]", "vgg16 resnet50 inception", 2, 2, "joint"),
        ("epsilon.reference=4", "vgg16 resnet50 inception", 6, 4, "joint"),
        ("epsilon.grid=[0,0.01,0.1]", "vgg16 resnet50 inception", 2, 0.1, "joint"),
        ("attack=none targets=[vit]", "vit", 0, 0, "all"),
        ("attack=saved attack.path=x targets=vit", "vit", 6, 8, None),
    ],
)
def test_what_is_left_open_has_a_rule(words, targets, budgets, reference, protocol):
    settings = read(*words.split())
    assert " ".join(settings.targets) == targets and settings.protocol == protocol
    assert (len(settings.budgets), settings.reference) == (budgets, reference)


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
    monkeypatch.setattr(src.main, "GPU_FILES", (tmp_path if known else tmp_path / "absent",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: usable)
    assert read("trainer=default").training.device == ("gpu" if known and usable else "cpu")


@pytest.mark.parametrize(
    ("words", "storage", "variants"),
    [
        ("", "float32", ()),
        ("save_adversarial=true", "uint8", ("float32",)),
        ("storage=uint8 variants=[png]", "uint8", ("float32", "png")),
        ("variants=[uint8,jpeg75]", "float32", ("uint8", "jpeg75")),
    ],
)
def test_float32_stands_beside_rounded_images(words, storage, variants):
    settings = read(*words.split())
    assert (settings.storage, settings.variants) == (storage, variants)


@pytest.mark.parametrize(("group", "option"), [*GROUPS, *ATTACKS])
def test_every_option_makes_a_job(group, option):
    saved = ["attack=saved", "attack.path=x"] if option == "saved" else []
    assert read(f"{group}={option}", *saved)


def test_the_catalogue_lists_every_model_file():
    catalogue = {"inception" if name == "inception_resized" else name for name in MODELS}
    names = ["model.timm.network.model_name=x", "model.torchvision.network.name=x"]
    every = ",".join(name for name in MODELS if name != "inception")
    settings = read(f"model=[{every}]", f"targets=[{','.join(catalogue)}]", "source=vit", *names)
    assert set(settings.models) == catalogue and settings.model["inception"].input_size == 80
    with pytest.raises(ValueError, match=", ".join(sorted({*MODELS} - {"inception_resized"}))):
        read("source=nope")


# Values out of their type or range, which a refusal repeats as they are given.
WRONG_VALUES = [
    *("n_images=0", "seed=-1", "seed=4294967296", "epsilon.grid=-1", "epsilon.grid=256"),
    *("epsilon.grid=nan", "epsilon.grid=eight", "epsilon.grid=null", "epsilon.reference=0"),
    *("trainer.batch_size=some", "training.label_smoothing=1", "attack.steps=0"),
    *("model.vgg16.expected_accuracy=2", "diagnostics.bisection=21", "diagnostics.bisection=True"),
]
# Words of a command line, and what the refusal names: the key, and the value or the way out.
REFUSED = [
    *((word, re.escape(word)) for word in WRONG_VALUES),
    ("source=vgg61", "source .*vgg61.*among the models: .*vgg16"),
    ("~dataset n_images=10", "^dataset is missing"),
    ("trainer.devices=null", "^trainer.devices=null must be a whole number"),
    ("targets=[]", "targets .*empty"),
    ("targets=[vgg16,resnet50,vgg16]", "targets.*vgg16.*more than once"),
    ("ensemble=votes", "ensemble=votes .*logits, probabilities, loss"),
    ("variants=[gif]", "variants.*gif.*float32, uint8, png"),
    ("+foo=1", "no key foo"),
    ("epsilon.grid=[0]", "epsilon.grid.*above 0"),
    ("epsilon.grid=[0,0.0314,0.001]", r"epsilon.grid.*1/255: did you mean 0.255, 8\?"),
    ("epsilon.reference=5", "epsilon.reference=5 .*1, 2, 4, 8, 12, 16"),
    ("dataset.name='[/x]'", r"dataset.name.*\[/x\]"),
    ("model.vgg16.weights=gone.pt", "model.vgg16.weights.*gone.pt is not a file"),
    ("+model.vgg16.meen=[0]", "no key model.vgg16.meen.*Did you mean mean"),
    ("+attack.stepz=3", r"attack=bim .*stepz; .*bim\.yaml.*Did you mean steps"),
    ("attack.name=pgd", r"attack.name=pgd .*bim\.yaml"),
    ("attack._target_=src.attacks.gone", "_target_ src.attacks.gone cannot be imported"),
    ("attack._target_=null", "attack=bim names no function as its _target_"),
    ("attack._target_=math.sqrt", "attack=bim: it has no key attack.steps"),
    ("source=clean +model.clean={name:x}", "source=clean: no model"),
    ("attack=none source=vgg16", "source .*attack=none"),
    ("attack=none controls=true", "controls=true .*attack=none"),
    ("attack=saved", "attack.path"),
    ("attack=saved attack.path=x save_adversarial=true", "save_adversarial=true .*attack=saved"),
    ("attack=saved attack.path=x attack.origin.norm=l1", "origin.norm=l1 .*linf, l2"),
]


@pytest.mark.parametrize(("words", "named"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused_in_one_sentence(words, named):
    with pytest.raises(ValueError, match=named) as caught:
        read(
            "dataset=cifar10_mini",
            *([] if "attack=" in words else ["attack=bim"]),
            *words.split(" "),
        )
    assert "\n" not in str(caught.value)


def returns_one_image(model, images, labels, eps, **settings):
    return images


def without_targets(model, images, labels, eps, *, norm, loss):
    return images.expand(len(eps), *images.shape)


def takes_seeds(model, images, labels, eps, *, seeds, **settings):
    return images.expand(len(eps), *images.shape)


def test_an_attack_of_ones_own_must_fit(monkeypatch, tmp_path):
    monkeypatch.setattr("src.attacks.fgsm", returns_one_image)
    with pytest.raises(ValueError, match=r"must return a tensor \(6, 2, 3, 64, 64\)"):
        read()
    monkeypatch.setattr("src.attacks.fgsm", without_targets)
    read()
    with pytest.raises(ValueError, match="its function has no argument `targeted`"):
        read("attack.target_label=next")
    (tmp_path / "attack").mkdir()
    text = f"name: own\n_target_: {__name__}.takes_seeds\nseeds: 3\n"
    (tmp_path / "attack" / "own.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"attack\.seeds is filled in"):
        read("attack=own", extra=tmp_path)


# Command lines that Hydra itself cannot compose.
WRONG = [
    ("attack=fgsmm", "there is no attack=fgsmm among admix, .* Did you mean fgsm"),
    ("trainer=nope", "there is no trainer=nope among cpu, ddp, default, each_gpu, gpu, gpu_fast.$"),
    ("trainer.batchsize=4", "there is no key batchsize in trainer. Did you mean batch_size"),
    ("batch_size=4", "there is no key batch_size in the config. Did you mean train.*.batch_size"),
    ("attack=fgsm,bim", "attack=fgsm,bim: -m before the keys runs each in turn"),
    ("seed", "seed cannot be read as KEY=VALUE: missing EQUAL"),
    ("seed=${nope}", "'nope' not found"),
    ("model.vgg16.weights=~/w.pt", r"""quotes: 'model.vgg16.weights="VALUE"'"""),
]


@pytest.mark.parametrize(("word", "message"), WRONG, ids=[word for word, _ in WRONG])
def test_one_line_says_what_hydra_means(word, message):
    conf = initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF))
    with conf, pytest.raises(REFUSALS) as caught:
        _ = compose("config", [word]).seed
    sentence = explain(caught.value)
    assert re.search(message, sentence), sentence
    assert "\n" not in sentence and "use +" not in sentence and "HYDRA_FULL_ERROR" not in sentence


def test_a_command_is_refused_in_one_line_and_exits_with_2(command_line, workspace, capfd):
    assert command_line("-m", "attack=bim,fgsm", "attack.steps=5", "tracking=none") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "attack=fgsm has no setting steps; its settings are norm, loss, target_label" in line


def test_a_file_that_is_no_yaml_is_named(command_line, workspace, capfd):
    text = "# @package model.coarse\na: [1\nb: 2"
    (workspace / "conf" / "model" / "coarse.yaml").write_text(text)
    assert command_line() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "coarse.yaml" in line
