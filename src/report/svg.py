"""Figures as SVG that can stand beside others in one page, and as small pictures."""

import base64
import io
import pickle
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from src.report.compact import LINK, SVG, compact, set_style, style_of
from src.report.ink import DARK_PAPER, contrast, is_grey, screen_colour

_FONT = "'DejaVu Sans', Verdana, sans-serif"
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "transferability"}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MATHS = re.compile(r"(?<!\\)\$(.+?)(?<!\\)\$")
_SIGNS = {
    r"\epsilon": "\u03b5",
    r"\times": "\u00d7",
    r"\rho": "\u03c1",
    r"\kappa": "\u03ba",
    r"\pm": "\u00b1",
    r"\leq": "\u2264",
    r"\geq": "\u2265",
    r"\rightarrow": "\u2192",
    r"\to": "\u2192",
    r"\infty": "\u221e",
}
_PIXELS_PER_INCH = 192  # two for each CSS pixel
_LADDER = ((1, 85), (1, 70), (1, 55), (0.75, 65), (0.75, 45), (0.5, 55), (0.4, 40))
"""Share of the size and quality of the tries to make a picture small."""
_QUICK = 5  # the quick lossless try gives files up to so many times as large as the thorough one
_LEAST_ON_DARK = 2.0  # colours below: lightened, they could no longer be told apart
_SOLID = 0.4  # least opacity at which a shape hides the paper under a text


def standalone_svg(figure: Figure) -> bytes:
    """Draw a figure as an SVG file whose text is text; equal figures give equal bytes."""
    root = _drawn(fresh(figure))
    compact(root, "part")
    root.set("font-family", _FONT)
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", LINK[1:].split("}")[0])
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def inline_svg(figure: Figure, name: str, title: str, description: str) -> tuple[str, bool]:
    """Draw a figure as an SVG element of an HTML page.

    Text takes the page's font; axes, text, grid and background take its colours (see
    `src.report.ink.screen_colour`); data keep theirs.

    Args:
        figure: Drawn as a copy, so that it stays as it is.
        name: Begins every id; `-` and one word without it follow, so that figures with
            different names do not share any.
        title: Its name for screen readers.
        description: What a reader who cannot see it needs to know.

    Returns:
        The element, and whether it needs light paper on a dark screen too: because it holds
        pixels, colours made for white paper, or text on top of data.
    """
    copy = fresh(figure)
    with _without_paper(copy), _plain_texts(copy):
        root = _drawn(copy)
        light = _is_made_for_light_paper(root) or _has_text_on_data(copy)
    compact(root, name)
    for element in root.iter():
        _use_screen_colours(element)
        element.tag = element.tag.removeprefix(SVG)
        if LINK in element.attrib:
            element.set("href", element.attrib.pop(LINK))
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        child = Element(tag, {"id": f"{name}-{tag}"})
        child.text = _CONTROL.sub("", words)
        root.insert(place, child)
    width, height = figure.get_size_inches()
    root.attrib.pop("version", None)
    root.attrib |= {
        "width": f"{96 * width:.0f}",
        "height": f"{96 * height:.0f}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    return ElementTree.tostring(root, encoding="unicode"), light


def embedded_picture(figure: Figure, most: int) -> tuple[str, int, int]:
    """Draw a figure as pixels inside a page, two for each pixel of its nominal size.

    Args:
        figure: Drawn as a copy, so that it stays as it is.
        most: Length that the result should keep below, in characters; what does not fit at the
            lowest quality and half the size is longer.

    Returns:
        A `data:` address of a WebP picture, and its nominal width and height in pixels.
    """
    buffer = io.BytesIO()
    settings = {"compress_level": 1}  # only read again below
    fresh(figure).savefig(buffer, format="png", dpi=_PIXELS_PER_INCH, pil_kwargs=settings)
    picture = Image.open(buffer).convert("RGB")
    text = base64.b64encode(_encoded(picture, most * 3 // 4)).decode("ascii")
    return f"data:image/webp;base64,{text}", picture.width // 2, picture.height // 2


def fresh(figure: Figure) -> Figure:
    """Copy a figure: drawing changes its layout, so that a second time gives other bytes."""
    try:
        copied: Figure = pickle.loads(pickle.dumps(figure))
    except (AttributeError, TypeError, pickle.PicklingError):  # holds a function without a name
        return figure
    return copied


def _drawn(figure: Figure) -> Element:
    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # Only its width is guessed: the letter itself comes from the reader's fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return ElementTree.fromstring(_CONTROL.sub("", buffer.getvalue()).encode())


def _encoded(picture: Image.Image, most: int) -> bytes:
    """Return a picture as WebP of at most so many bytes if that can be had, as good as it can."""
    # The quick try tells whether the thorough one is worth its time.
    if len(_webp(picture, lossless=True, quality=0, method=0)) < _QUICK * most:
        exact = _webp(picture, lossless=True, quality=50, method=2)
        if len(exact) <= most:
            return exact

    @cache
    def tried(rung: int) -> bytes:
        share, quality = _LADDER[rung]
        size = (round(picture.width * share), round(picture.height * share))
        return _webp(picture.resize(size), quality=quality, method=2)

    last = len(_LADDER) - 1
    return tried(bisect_left(range(last), True, key=lambda rung: len(tried(rung)) <= most))


def _webp(picture: Image.Image, **settings: float) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", **settings)
    return buffer.getvalue()


@contextmanager
def _without_paper(figure: Figure) -> Iterator[None]:
    """Leave out the white behind the figure and behind its axes."""
    patches = [figure.patch, *(axes.patch for axes in figure.axes)]
    white = [patch for patch in patches if patch.get_visible() and _is_white(patch.get_facecolor())]
    for patch in white:
        patch.set_visible(False)
    yield
    for patch in white:
        patch.set_visible(True)


@contextmanager
def _plain_texts(figure: Figure) -> Iterator[None]:
    r"""Write simple formulas such as `$\epsilon$` as plain signs.

    In SVG, letters of a text with a formula are placed one by one, for one font; plain text
    keeps its alignment in every font.
    """
    texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    before = [text.get_text() for text in texts]
    for text, words in zip(texts, before, strict=True):
        text.set_text(_MATHS.sub(_plain, words))
    yield
    for text, words in zip(texts, before, strict=True):
        text.set_text(words)


def _plain(formula: re.Match[str]) -> str:
    words = formula[1]
    for sign, character in _SIGNS.items():
        words = re.sub(re.escape(sign) + r"(?![A-Za-z])", character, words)
    return formula[0] if re.search(r"[\\^_{}]", words) else words


def _is_white(colour: Any) -> bool:
    return min(to_rgba(colour)) == 1.0


def _use_screen_colours(element: Element) -> None:
    style = style_of(element)
    letters = element.tag in (f"{SVG}text", f"{SVG}tspan") or "font-size" in style
    for key in ("fill", "stroke"):
        if style.get(key, "").startswith("#"):
            style[key] = screen_colour(style[key], text=letters)
    set_style(element, style)


def _is_made_for_light_paper(root: Element) -> bool:
    """Tell whether there are pixels, white letters or colours that vanish on dark paper."""
    for element in root.iter():
        if element.tag == f"{SVG}image":
            return True
        style = style_of(element)
        for colour in (style.get("fill", ""), style.get("stroke", "")):
            if not colour.startswith("#"):
                continue
            if not is_grey(colour) and contrast(colour, DARK_PAPER) < _LEAST_ON_DARK:
                return True
            if element.tag == f"{SVG}text" and contrast(colour, "#ffffff") < _LEAST_ON_DARK:
                return True
    return False


def _has_text_on_data(figure: Figure) -> bool:
    """Tell whether a text inside axes lies on a coloured shape, whose ink must then stay."""
    return any(_covers_text(axes) for axes in figure.axes)


def _covers_text(axes: Axes) -> bool:
    texts = [text.get_window_extent() for text in axes.texts if text.get_text().strip()]
    shapes = [
        patch.get_window_extent()
        for patch in axes.patches
        if patch.get_visible() and patch.get_fill() and not _lets_paper_through(patch)
    ]
    return any(shape.overlaps(text) for shape in shapes for text in texts)


def _lets_paper_through(patch: Patch) -> bool:
    colour = to_rgba(patch.get_facecolor())
    return colour[3] < _SOLID or is_grey(to_hex(colour))
