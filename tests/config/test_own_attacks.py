"""Files of a user's own attacks."""

import pytest

import src.attacks
from src.config.settings import Settings
from tests.config.test_settings import read


def without_targets(model, images, labels, eps, *, norm: "Unknown", **more):  # noqa: F821
    return images.expand(len(eps), *images.shape)


def strict(model, images, labels, eps, *, sizes: "tuple[int, ...]", norm="linf"):
    return images.expand(len(eps), *images.shape)


def test_keywords_of_an_attack_of_ones_own_are_those_of_its_function(tmp_path, caplog):
    def own(name: str, keys: str, *words: str) -> Settings:
        (tmp_path / "attack").mkdir(exist_ok=True)
        text = f"_target_: {__name__}.{name}\n{keys}\n"
        (tmp_path / "attack" / "own.yaml").write_text(text)
        return read("attack=own", *words, extra=tmp_path)

    own("strict", "sizes: [1, 2]")
    for keys, named in {
        "sizes: [a]": r"attack\.sizes\.0=a",
        "size: [1]\nsizes: [1]": "attack.size: attack=own .*Did you mean sizes",  # in its file
        "norm: linf": "attack.sizes",
        "sizes: [true]": "attack.sizes",
    }.items():
        with pytest.raises(ValueError, match=named):
            own("strict", keys)
    with pytest.raises(ValueError, match="has no argument `targeted`"):
        own("strict", "sizes: [1]\ntarget_label: null", "attack.target_label=next")
    assert not caplog.text
    own("without_targets", "norm: linf\nanything: 3")
    assert "attack=own takes any keyword; unchecked: anything" in caplog.text


@src.attacks.attack(steps=7, members=2)
def drawn() -> None:
    """Seven steps: no more."""


@pytest.mark.slow
def test_an_attack_of_ones_own_states_what_its_function_or_its_file_does(tmp_path):
    (tmp_path / "attack").mkdir()

    def own(keys: str, *words: str) -> Settings:
        text = f"_target_: {__name__}.drawn\n{keys}\n"
        (tmp_path / "attack" / "own.yaml").write_text(text)
        return read("attack=own", *words, extra=tmp_path)

    attack = own("steps: 7", "source=[vgg16,resnet50]").attack
    assert (attack.about.category, attack.about.does) == ("own", "Seven steps")
    assert attack.gradients(budgets=2, members=2) == 1 + 2 * 6 and attack.about.mixes
    with pytest.raises(ValueError, match=r"source=vgg16: attack=own needs .* 2 models"):
        own("", "source=vgg16")
    assert own("about: {does: other}", "source=vgg16").attack.about.does == "other"
