"""Every option of every group composes into a job, and the command line's words work."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import src.main
from src.config.read import read_job

OPTIONS = [
    (group.name, option.stem)
    for group in sorted(src.main.CONF.iterdir())
    if group.is_dir() and group.name not in ("hydra", "model")
    for option in sorted(group.glob("*.yaml"))
]
MODELS = sorted(path.stem for path in (src.main.CONF / "model").glob("*.yaml"))


def composed(*overrides: str, extra: Path | None = None):
    search = [f"hydra.searchpath=[file://{extra}]"] if extra else []
    with initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF)):
        return compose("config", [*overrides, *search])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_makes_a_job(group, option):
    config = composed(f"{group}={option}")
    job = read_job(config)
    assert job.section(group if group != "experiment" else "dataset")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_the_keys_of_a_model_file(model):
    config = composed(f"model=[{model}]")
    (entry,) = config.model.values()
    assert set(entry) == {"network", "mean", "std", "input_size", "weights", "expected_accuracy"}


def test_the_catalogue_lists_every_model_file():
    listed = {name for name in composed().model}
    assert listed == {model for model in MODELS if model != "inception_resized"}


def test_keys_of_the_readme_need_no_plus(tmp_path):
    weights = tmp_path / "file.pt"
    weights.touch()
    config = composed(
        "source=resnet50",
        "targets=[vgg16]",
        "seed=3",
        "n_images=7",
        "epsilon.grid=[0,1]",
        f"model.vgg16.weights={weights}",
        "model.vgg16.expected_accuracy=0.9",
        "dataset=image_folder",
        "dataset.root=/some/where",
        "attack=bim",
        "attack.steps=3",
        "training.epochs=2",
        "tracking.uri=http://host:5000",
    )
    read = read_job(config)
    assert read.section("dataset")["n_images"] == 7
    assert read.section("model.vgg16")["weights"] == str(weights)


@pytest.mark.parametrize("primary", ["config", "explore", "score"])
def test_the_demo_finds_the_same_weights_in_every_command(primary):
    with initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF)):
        demo = compose("config", ["experiment=demo"])
        config = compose(primary, ["experiment=demo"])
    for section in ("model", "training", "trainer", "cache_dir"):
        assert config[section] == demo[section]
    assert config.dataset.get("_target_") == demo.dataset._target_
    assert config.model.inception.input_size == 80


def test_a_model_of_the_users_own_is_one_file(workspace):
    config = composed("model=[vgg16,coarse]", "source=coarse", extra=workspace / "conf")
    assert read_job(config).targets == ("vgg16", "coarse")


def test_a_config_prints_and_reads_back():
    config = composed("attack=bim")
    assert OmegaConf.create(OmegaConf.to_yaml(config)) == config
