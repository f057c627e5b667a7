"""Which code a config's callables are."""

import sys
from types import SimpleNamespace

import pytest

from src.config.settings import TrainerSettings
from src.experiment.identity import code_of, table_path

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


def path_of(names=("a", "b"), keys=("x", "y"), digest="0", batch_size=5, what=(1, (0.5, 0.25))):
    settings = SimpleNamespace(cache_dir="c", trainer=TrainerSettings(batch_size=batch_size))
    images = SimpleNamespace(digest=lambda: digest)
    known = dict(zip("ab", keys, strict=True))
    return table_path(settings, known, "cpu", images, "table", names, *what)


def test_a_kept_table_is_told_by_all_that_decides_its_numbers():
    assert path_of() == path_of(names=("b", "a"))
    assert path_of().name.startswith("table-a-b-")
    others = [{"names": ("a", "a")}, {"names": ("a",)}, {"keys": ("x", "z")}, {"digest": "1"}]
    others += [{"batch_size": 6}, {"what": (1, (0.5, 0.3))}, {"what": (2, (0.5, 0.25))}]
    assert len({path_of(), *(path_of(**other) for other in others)}) == 1 + len(others)
