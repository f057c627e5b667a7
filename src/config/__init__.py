"""Typed settings, read from the composed config."""

from typing import TYPE_CHECKING

from ..utils.package import lazily

if TYPE_CHECKING:
    from .attack_settings import AttackSettings
    from .command_line import ignore_harmless_warnings
    from .compose import compose_words
    from .fields import PRESETS
    from .gradient_cost import REPEATED, at_equal_cost
    from .read import read_job
    from .resolvers import CONF
    from .settings import Settings
else:  # most of them load Hydra
    __getattr__ = lazily(
        __name__,
        attack_settings="AttackSettings",
        command_line="ignore_harmless_warnings",
        compose="compose_words",
        fields="PRESETS",
        gradient_cost="REPEATED at_equal_cost",
        read="read_job",
        resolvers="CONF",
        settings="Settings",
    )
