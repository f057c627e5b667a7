"""Short cuts of libraries, because many tests run jobs of few combinations of config files."""

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import omegaconf
import pytest
import vl_convert
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl

CONF = Path(__file__).resolve().parents[1] / "conf"
load_whole = ConfigLoaderImpl._load_configuration_impl
_composed: dict[tuple[Any, ...], bytes] = {}


def speed_up_libraries() -> None:
    """Halve what a command costs besides its computing: many tests run some.

    Config files are parsed by libyaml, and each combination of them is composed once. Lightning
    asks for entry points whenever it makes a trainer, and each new cache folder gets a script for
    charts.
    """
    vl_convert.javascript_bundle = cache(vl_convert.javascript_bundle)
    metadata.entry_points = cache(metadata.entry_points)  # type: ignore[assignment]
    if hasattr(omegaconf._utils, "get_yaml_loader"):  # OmegaConf 2.4 takes libyaml by itself
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
            loader = omegaconf._utils.get_yaml_loader()
        omegaconf._utils.get_yaml_loader = lambda: loader
