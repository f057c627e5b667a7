"""Overrides of a command: names in them, values that stay text, words that cannot be read."""

import shlex

import pytest
from hydra.errors import OverrideParseException

from src.config.command import Command, flat
from src.config.compose import compose_words
from src.config.errors import explain
from src.utils.refusals import class_order

TEXTS = {
    "2024_01": ["2024_01"],
    "1e5": ["1e5"],
    "true": ["true"],
    "'1_1'": ["1_1"],
    "null": [],
    "'x,2024,y'": ["x,2024,y"],
    "[a,b],c": ["a", "b", "c"],
    "${oc.env:X,1_0}": ["${oc.env:X,1_0}"],
    "a 1_0,1_0 b": ["a 1_0", "1_0 b"],
}


UNREADABLE = ["source", "1a=3", "=a", "=", "targets=]", "a b=c", "attack.x={a:b(1)}", "=1("]
UNREADABLE += ["a=[[b(1)]]", "targets=[b(1)],c", "targets=[a, b", "targets=(a,b)", "x.root=net(1)"]


def test_a_word_that_cannot_be_read_is_named_with_what_to_type():
    for word in UNREADABLE:
        with pytest.raises(OverrideParseException) as caught:
            Command.parse([word])
        told = explain(caught.value)
        assert told.startswith(f"{word}: ") and told.endswith("""'KEY="TEXT"'""")


@pytest.mark.parametrize(
    "key", ["dataset.root", "source", "model.vgg16.weights", "attack.path", "++hydra.run.dir"]
)
def test_paths_and_names_stay_as_typed(key):
    for value, texts in TEXTS.items():
        (override,) = Command.parse([f"{key}={value}"]).overrides
        assert flat(override.value()) == texts
        assert Command.parse([str(override.input_line)]).overrides == (override,)


def test_printed_class_names_are_read_back():
    names = ["a,b", "[c]", "{d}", "(e)", 'f"g', "h'i", "j=k", "ü ②", " l", "m ", "null", "true"]
    names += ["1", "007", "1e5", "nan", "n\\", "$HOME", "#o", "p:q"]
    (word,) = shlex.split(class_order(names))
    assert list(compose_words([word]).dataset.class_names) == names
    assert "=" not in class_order([*names, "one more"])
