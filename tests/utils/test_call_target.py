"""Calling what a `_target_` names, and parsing the names of models."""

import pytest

from src.utils.call_target import call_target
from src.utils.model_names import ModelRef


@pytest.mark.parametrize("name", ["os.system", "logging.os.system", "subprocess.run"])
def test_hydra_refuses_what_runs_commands(tmp_path, name):
    made = tmp_path / "made"
    words = f"touch {made}" if "system" in name else ["touch", made]
    section = {"_target_": name, "_args_": [words]}
    for its in (section, {"_target_": "builtins.dict", "a": section}):
        with pytest.raises(ValueError, match=r"system|run"):
            call_target(its)
        assert not made.exists()


@pytest.mark.parametrize(
    ("section", "told", "cause"),
    [
        ({"_target_": "no.where"}, "^_target_ no.where cannot be found. .*No module", ImportError),
        ({"_target_": "math.sqrt", "_args_": ["x"]}, "^math.sqrt failed with TypeErr", TypeError),
        ({"_target_": "math.pi"}, "callable", Exception),
    ],
)
def test_a_failure_is_a_value_error_with_its_cause(section, told, cause):
    with pytest.raises(ValueError, match=told) as caught:
        call_target(section)
    assert isinstance(caught.value.__cause__, cause) and "\n" not in str(caught.value)


def test_a_name_of_a_model_is_parsed_and_printed_without_loss():
    for name in ("vgg", "vgg@jpeg", "vgg+resnet", "vgg+resnet@jpeg", "vgg_seed1", ""):
        model = ModelRef.parse(name)
        assert str(model) == name and ModelRef.parse(*model.columns) == model
    # The column of models has no defence in it; a frame of one's own may have any name.
    assert ModelRef.parse("a@b", "none").members == ("a@b",)
    assert ModelRef.parse("timm/x").model == "timm/x"
