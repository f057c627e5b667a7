"""Names of networks behind defences, such as `resnet50@jpeg`."""

PLAIN = "none"
"""Name of no defence."""
ABSTAINED = -1
"""Predicted class where a defence abstains."""


def defended(model: str, defence: str) -> str:
    """Return the name of a model behind a defence, its own name behind none.

    >>> defended("resnet50", "jpeg"), defended("resnet50", "none")
    ('resnet50@jpeg', 'resnet50')
    """
    return model if defence == PLAIN else f"{model}@{defence}"


def parted(name: str) -> tuple[str, str]:
    """Return the model and the defence that a name stands for.

    >>> parted("resnet50@jpeg"), parted("resnet50")
    (('resnet50', 'jpeg'), ('resnet50', 'none'))
    """
    model, _, defence = name.partition("@")
    return model, defence or PLAIN
