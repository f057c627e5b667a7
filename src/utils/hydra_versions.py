"""Differences between the versions of Hydra that this program runs with, 1.3 and 1.4."""

from contextlib import nullcontext
from typing import Any

import hydra.utils

OLD = hydra.__version__.startswith("1.3.")
"""The version is 1.3, which comes with OmegaConf 2.3."""
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if OLD else {}
"""Keyword for the newest behaviour of 1.3; 1.4 has no other and warns of it."""
allow: Any = getattr(hydra.utils, "execution_whitelist", nullcontext)
"""Context in which 1.4 instantiates what the given names name; 1.3 needs none."""
ANY = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
"""For `allow`: any name."""
