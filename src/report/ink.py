"""Colours for screens: contrast after WCAG 2, and what ink becomes on dark paper."""

import re
from collections.abc import Iterable

import numpy as np
from matplotlib.colors import to_hex, to_rgb

DARK_PAPER = "#1b1f23"
"""Behind figures on dark screens."""
DARK_INK = "#e6e8ea"
"""Text and axes on dark screens."""

_SHAPES, _TEXT = 3.0, 4.5  # least contrast of graphics and of text, WCAG 2.2, level AA
_GREY = 0.04  # colours whose channels differ by less are ink, not data
_VARIABLE = re.compile(r"var\(--(ink|shape|text)-([0-9a-f]+),")


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours.

    Args:
        first: Colour as matplotlib understands it.
        second: Another one.

    Returns:
        Ratio from 1 (equal) to 21 (black and white).

    Reference:
        Web Content Accessibility Guidelines 2.2, "contrast ratio".
    """
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def ink_on(background: str) -> str:
    """Return black or white, whichever contrasts more; the contrast is 4.5 or more."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def is_grey(colour: str) -> bool:
    """Tell whether a colour is ink (black, grey or white) rather than data."""
    channels = to_rgb(colour)
    return max(channels) - min(channels) < _GREY


def screen_colour(colour: str, *, text: bool) -> str:
    """Write a colour so that the page can change it on dark paper.

    Args:
        colour: `#rrggbb`.
        text: Whether it colours letters, which need more contrast than lines.

    Returns:
        CSS colour: black is `currentColor`, greys and white are variables that fall back on
        themselves, and so are data colours too dark for dark paper. Others stay.
    """
    if is_grey(colour):
        level = round(15 * float(np.mean(to_rgb(colour))))
        return "currentColor" if level == 0 else f"var(--ink-{level:x},{colour})"
    if contrast(colour, DARK_PAPER) >= (_TEXT if text else _SHAPES):
        return colour
    return f"var(--{'text' if text else 'shape'}-{colour[1:]},{colour})"


def dark_variables(markup: Iterable[str]) -> str:
    """Return CSS that sets, for dark paper, the variables that `screen_colour` wrote.

    Args:
        markup: SVGs with such colours.
    """
    found = {match.groups() for text in markup for match in _VARIABLE.finditer(text)}
    return "".join(f"--{kind}-{name}:{_on_dark(kind, name)};" for kind, name in sorted(found))


def _on_dark(kind: str, name: str) -> str:
    if kind == "ink":
        return _mix(DARK_INK, DARK_PAPER, int(name, 16) / 15)
    colour, least = f"#{name}", _TEXT if kind == "text" else _SHAPES
    shades = (_mix(colour, "#ffffff", share) for share in np.linspace(0, 1, 41))
    return next(shade for shade in shades if contrast(shade, DARK_PAPER) >= least)


def _mix(first: str, second: str, share: float) -> str:
    """Return `first` with `share` of `second`."""
    mixed = (1 - share) * np.array(to_rgb(first)) + share * np.array(to_rgb(second))
    return to_hex((mixed[0], mixed[1], mixed[2]))


def _luminance(colour: str) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
