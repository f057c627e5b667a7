"""Overrides of a command: names in them, values that stay text, words that cannot be read."""

import re
import shlex
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest
import yaml
from hydra.errors import ConfigCompositionException, OverrideParseException

import src
from src.config import resolvers
from src.config.command import Command, flat
from src.config.compose import compose_words
from src.config.errors import explain
from src.utils.refusals import class_order

TEXTS = {
    "2024_01": ["2024_01"],
    "1e5": ["1e5"],
    "010": ["010"],
    "2024-01-02": ["2024-01-02"],
    "true": ["true"],
    "nan": ["nan"],
    "'1_1'": ["1_1"],
    "null": [],
    "'a, b'": ["a, b"],
    "'x,2024,y'": ["x,2024,y"],
    "[a,b],c": ["a", "b", "c"],
    "${oc.env:X,1_0}": ["${oc.env:X,1_0}"],
    " 1e5 ": ["1e5"],
    "a 1_0,1_0 b": ["a 1_0", "1_0 b"],
}


@pytest.mark.parametrize(
    "word",
    [
        *(
            "source",
            "1a=3",
            "=a",
            "=",
            "targets=]",
            "a b=c",
            "attack.x={a:b(1)}",
            "=1(",
            "a=[[b(1)]]",
        ),
        *("targets=[b(1)],c", "targets=[a, b", "targets=(a,b)", "dataset.root=net(1)"),
    ],
)
def test_a_word_that_cannot_be_read_is_named_with_what_to_type(word):
    with pytest.raises(OverrideParseException) as caught:
        Command.parse([word])
    told = explain(caught.value)
    assert told.startswith(f"{word}: ") and told.endswith("""quote texts: 'KEY="TEXT"'""")


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["+attack=bim"], ["attack=bim"]),
        (["++attack=bim"], ["attack=bim"]),
        (["+experiment=demo"], ["experiment=demo"]),
        (["attack=fgsm", "attack=bim,fgsm"], ["-m", "attack=fgsm,bim,fgsm"]),
        (["source=[a,b]", "source=c"], ["-m", "source=[a,b],c"]),
    ],
)
def test_an_option_that_is_added_or_set_again_is_refused_with_what_to_type(words, way):
    with pytest.raises(ValueError, match=r"attack|source|experiment") as caught:
        Command.parse(words).check(resolvers.CONF)
    assert shlex.split(str(caught.value).lower().rpartition("type ")[2]) == way


@pytest.mark.parametrize("word", ["attack=fgsm,5", "epsilon=range(1,4)", "attack=fgsm,null"])
def test_a_sweep_of_options_has_only_names(word):
    with pytest.raises(ValueError, match="is not an option"):
        Command.parse([word]).check(resolvers.CONF)


def test_options_in_sweeps_are_not_refused():
    Command.parse(["attack=glob(f*)", "tracking=none,mlflow"]).check(resolvers.CONF)
    Command.parse(["attack=choice(fgsm,bim)", "hydra/launcher=joblib"]).check(resolvers.CONF)


@pytest.mark.parametrize(
    "key", ["dataset.root", "source", "model.vgg16.weights", "attack.path", "++hydra.run.dir"]
)
@pytest.mark.parametrize(("value", "texts"), TEXTS.items())
def test_paths_and_names_stay_as_typed(key, value, texts):
    (override,) = Command.parse([f"{key}={value}"]).overrides
    assert flat(override.value()) == texts
    assert Command.parse([str(override.input_line)]).overrides == (override,)


@pytest.mark.parametrize("value", ["1_1,2_2", "[a,1e5]", "[a,[3]]", "choice([1e5],'a, b')"])
def test_numbers_in_a_list_of_names_are_to_be_quoted(value):
    with pytest.raises(ValueError, match=r"^source=.*: .* is a number, not a name\. Quote it"):
        Command.parse([f"source={value}"])


def test_a_sweep_of_lists_is_split_into_its_jobs():
    words = ["source=[vgg_small,resnet_small],vit_small", "defences=[none,jpeg],none"]
    assert [str(override.input_line) for override in Command.parse(words).overrides] == words


def test_tags_have_any_name_and_the_sections_other_keys_are_closed():
    words = ["tracking.tags={paper: A, epoch: 3}"]
    assert compose_words(resolvers.CONF, words).tracking.tags == {"paper": "A", "epoch": 3}
    assert compose_words(resolvers.CONF, ["tracking.name=2024_01"]).tracking.name == "2024_01"
    with pytest.raises(ConfigCompositionException):
        compose_words(resolvers.CONF, ["tracking.tagz={paper: A}"])


def test_numbers_elsewhere_are_numbers():
    command = Command.parse(["n_images=5_0", "training.learning_rate=1e-3", "report.images=[1,2]"])
    assert [override.value() for override in command.overrides] == [50, 0.001, [1, 2]]
    config = compose_words(resolvers.CONF, ["dataset=image_folder", "dataset.root=2024_01"])
    assert config.dataset.root == "2024_01"


@pytest.mark.parametrize(
    "base", ["mine/base", "/experiment/mine/base", {"/experiment/mine": ["base"]}]
)
def test_experiments_name_models_through_those_that_they_extend(tmp_path, base):
    (tmp_path / "experiment" / "mine").mkdir(parents=True)
    texts = {"base": {"targets": ["resnet18"]}, "own": {"defaults": [base, "_self_"]}}
    for name, content in texts.items():
        text = f"# @package _global_\n{yaml.safe_dump(content)}"
        (tmp_path / "experiment" / "mine" / f"{name}.yaml").write_text(text)
    config = compose_words(resolvers.CONF, ["experiment=mine/own"], tmp_path)
    assert list(config.targets) == ["resnet18"] and "resnet18" in config.model


@pytest.mark.parametrize(
    "name",
    [
        "hydra._internal.utils:get_args_parser",
        "hydra._internal.callbacks:Callbacks",
        "hydra._internal.config_loader_impl:ConfigLoaderImpl._apply_overrides_to_config",
        "hydra._internal.hydra:Hydra.show_cfg",
        "hydra._internal.utils:create_config_search_path",
        "hydra.plugins.config_source:ConfigSource._get_header_dict",
    ],
)
def test_a_private_name_of_hydra_exists(name):
    assert callable(resolve_name(name))


def test_hydras_private_names_are_used_in_one_file():
    root = Path(src.__file__).parent
    private = re.compile(r"hydra\._internal|hydra\.grammar|ConfigSource\._|ConfigLoaderImpl")
    users = [path for path in root.rglob("*.py") if private.search(path.read_text())]
    assert [path.name for path in users] == ["hydra_internals.py"]


def test_a_public_function_is_no_command_of_the_same_name():
    assert import_module("src.table").main and import_module("src.compare").main
    from src import compare, table

    assert not isinstance(table, ModuleType) and not isinstance(compare, ModuleType)


def test_printed_class_names_are_read_back():
    names = ["a,b", "[c]", "{d}", "(e)", 'f"g', "h'i", "j=k", "ü ②", " l", "m ", "null", "true"]
    names += ["1", "007", "1e5", "nan", "n\\", "$HOME", "#o", "p:q"]
    (word,) = shlex.split(class_order(names))
    assert list(compose_words(resolvers.CONF, [word]).dataset.class_names) == names
    assert "=" not in class_order([*names, "one more"])


def test_a_file_of_budgets_may_lack_below_one(tmp_path):
    (tmp_path / "epsilon").mkdir()
    (tmp_path / "epsilon" / "mine.yaml").write_text("grid: [0.1, 0.3]\nreference: null\n")
    words = ["epsilon=mine", f"hydra.searchpath=[{tmp_path}]"]
    assert compose_words(resolvers.CONF, words).epsilon.below_one is False
    assert (
        compose_words(resolvers.CONF, [*words, "epsilon.below_one=true"]).epsilon.below_one is True
    )
    with pytest.raises(ConfigCompositionException):
        compose_words(resolvers.CONF, [*words, "epsilon.below=true"])
