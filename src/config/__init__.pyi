"""What the package offers, for editors and for imports on first use."""

from .attack_settings import AttackSettings as AttackSettings
from .command_line import ignore_harmless_warnings as ignore_harmless_warnings
from .compose import compose_words as compose_words
from .fields import PRESETS as PRESETS
from .read import read_job as read_job
from .resolvers import CONF as CONF
from .settings import Settings as Settings
