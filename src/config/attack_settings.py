"""Settings for the source of adversarial images: an attack or a saved set."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ..utils.about import About, Norm
from .fields import Name, check_units
from .label import computed_count
from .sections import Section, TargetLabelRule


class SavedOrigin(Section):
    """Facts that are missing in the files of a set from another program."""

    source: Name = "unknown"
    attack: Name = "unknown"
    norm: Norm = "linf"
    targeted: bool = False
    dataset: Name = "unknown"


class SavedSettings(Section):
    """Saved set of adversarial images; the keys of `conf/attack/saved.yaml`."""

    path: str
    clean: str | None = None
    labels: str | None = None
    eps_255: Annotated[float, Field(gt=0, le=255)] | None = None
    origin: SavedOrigin = SavedOrigin()

    @field_validator("eps_255")
    @classmethod
    def _in_levels(cls, value: float | None) -> float | None:
        check_units([value or 0])
        return value


class AttackSettings(Section):
    """Settings of an attack or of a saved set.

    Attributes:
        about: Statements of the attack or its file.
        kind: `crafted` by an attack on the source, `saved` in files, or `none`.
        label: Name in runs, tables and headings, see `attack_label`.
        settings: All keys of the attack's file, resolved.
        source: Model that a saved set was crafted on, according to its files.
    """

    kind: Literal["crafted", "saved", "none"] = "crafted"
    name: Name
    label: str
    norm: Norm = "linf"
    target_label: TargetLabelRule | None = None
    about: About = About()
    settings: dict[str, Any] = Field(default_factory=dict)
    saved: SavedSettings | None = None
    source: str = ""

    def gradients(self, budgets: int, members: int) -> float | None:
        """Return the number of gradients per image and member of the source; None if unknown.

        Attacks of other libraries, saved sets, and functions without a count do not state it.
        """
        return self._count("gradients", budgets=budgets, members=members)

    def fit_gradients(self, budgets: int, images: int) -> float | None:
        """Return the number of gradients per member for a fit on `images` images."""
        return self._count("fit_gradients", budgets=budgets, fit_n_images=images)

    def _count(self, name: str, **numbers: int) -> float | None:
        """Return a number stated in `about`, or computed by the attack's function."""
        stated = getattr(self.about, name)
        if not isinstance(stated, str):
            return float(stated)
        try:
            return float(computed_count(self.settings, name, numbers))
        except Exception:  # there is no count, or a user's count raises an error
            return None
