"""Which code a config's callables are."""

import sys

import pytest

from src.experiment.identity import code_of

WORDS = {
    "function": "def it(x):\n    return {}",
    "partial of this package": "from functools import partial\nfrom src.attacks import bim\n"
    "it = partial(bim, steps={})",
    "instance of a library": "from torchvision.transforms import Pad\nit = Pad({})",
}


@pytest.mark.parametrize("kind", WORDS)
def test_code_of_ones_own_is_told_by_its_text(tmp_path, monkeypatch, kind):
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for number in (3, 30):
        (tmp_path / "own_rules.py").write_text(WORDS[kind].format(number))
        monkeypatch.delitem(sys.modules, "own_rules", raising=False)
        codes.append(code_of({"inner": [{"_target_": "own_rules.it"}]}))
    assert codes[0] != codes[1] and all(code["own_rules.it"] for code in codes)


def test_an_installed_package_is_told_by_its_version_and_this_one_not_at_all():
    assert code_of({"_target_": "timm.create_model"})["timm.create_model"].startswith("timm ")
    assert code_of({"_target_": "src.attacks.bim"}) == {}
