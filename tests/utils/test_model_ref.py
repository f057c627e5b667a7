import pytest

from src.utils.model_names import ModelRef

NAMES = ["vgg", "vgg@jpeg", "vgg+resnet", "vgg+resnet@jpeg", "vgg_seed1", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_parsed_and_printed_without_loss(name):
    model = ModelRef.parse(name)
    assert str(model) == name and ModelRef.parse(*model.columns) == model


def test_a_name_in_the_column_of_models_has_no_defence_in_it():
    assert ModelRef.parse("a@b", "none").members == ("a@b",)
    assert ModelRef.parse("timm/x").model == "timm/x"  # as a frame of one's own has it
