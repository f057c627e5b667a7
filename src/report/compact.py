"""Matplotlib's SVG made small: short numbers, few groups, and ids that no other drawing has."""

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"

_NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_AROUND_LETTER = re.compile(r" ?([A-Za-z]) ?")
_GEOMETRY = ("d", "x", "y", "width", "height", "transform", "points", "viewBox")
_FONT = re.compile(r"(.*?)([\d.]+px)")
_LITTLE = 12.0  # markers and arrows this small, in points, keep a second decimal


def compact(root: Element, name: str) -> None:
    """Shorten an SVG in place, changing its looks by less than a tenth of a point.

    The font family is left out, so that the SVG takes that of what it stands in.

    Args:
        root: Element `svg` as matplotlib writes it.
        name: Begins every id.
    """
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                element.remove(child)
    # What the style element said of all of its elements.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    _rename(root, name)
    for element in root.iter():
        _shorten(element)
    _flatten(root)


def style_of(element: Element) -> dict[str, str]:
    """Return the style of an element by property."""
    parts = (part.partition(":") for part in element.get("style", "").split(";"))
    return {key.strip(): value.strip() for key, _, value in parts if value}


def set_style(element: Element, style: dict[str, str]) -> None:
    """Write the style of an element."""
    if style:
        element.set("style", ";".join(f"{key}:{value}" for key, value in style.items()))
    else:
        element.attrib.pop("style", None)


def _rename(root: Element, name: str) -> None:
    """Keep only the ids that something refers to, under short new names."""
    used = {found for element in root.iter() for found in _references(element)}
    names: dict[str, str] = {}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            names[old] = f"{name}-{len(names) + 1}"
            element.set("id", names[old])
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == LINK and value.startswith("#"):
                element.set(key, f"#{names[value[1:]]}")
            elif "url(#" in value:
                element.set(key, _REFERENCE.sub(lambda m: f"url(#{names[m[1]]})", value))


def _references(element: Element) -> Iterable[str]:
    for key, value in element.attrib.items():
        if key == LINK and value.startswith("#"):
            yield value[1:]
        yield from _REFERENCE.findall(value)


def _shorten(element: Element) -> None:
    """Round numbers and leave out what changes nothing."""
    if element.tag != f"{SVG}text" or not (element.text or "").strip():
        element.text = (element.text or "").strip() or None
    element.tail = None
    for key in _GEOMETRY:
        if key in element.attrib:
            element.set(key, _rounded(element.attrib[key]))
    if "d" in element.attrib:
        element.set("d", _AROUND_LETTER.sub(r"\1", element.attrib["d"]))
    if LINK in element.attrib:
        element.set(LINK, "".join(element.attrib[LINK].split()))
    if element.get("transform", "").startswith(("rotate(-0 ", "rotate(0 ")):
        del element.attrib["transform"]
    style = {key: _rounded(value, 2) for key, value in style_of(element).items()}
    style |= _font(style.pop("font", ""))
    style.pop("font-family", None)
    if style.get("stroke-dashoffset") == "0":
        del style["stroke-dashoffset"]
    if element.get("id") and element.tag == f"{SVG}path":
        # The style of a marker is repeated, in full, where it is used.
        style = {}
    set_style(element, style)


def _font(shorthand: str) -> dict[str, str]:
    """Take the shorthand of older versions of matplotlib apart, family left out.

    >>> _font("oblique 700 9px 'DejaVu Sans', sans-serif")
    {'font-style': 'oblique', 'font-weight': '700', 'font-size': '9px'}
    """
    match = _FONT.match(shorthand)
    if match is None:
        return {}
    style = {}
    for word in match[1].split():
        key = "font-style" if word in ("italic", "oblique") else "font-weight"
        style[key] = word
    return style | {"font-size": match[2]}


def _rounded(text: str, decimals: int | None = None) -> str:
    numbers = [abs(float(number)) for number in _NUMBER.findall(text)]
    if decimals is None:
        decimals = 2 if max(numbers, default=0.0) < _LITTLE else 1

    def short(match: re.Match[str]) -> str:
        number = f"{float(match[0]):.{decimals}f}".rstrip("0").rstrip(".")
        return "0" if number in ("-0", "") else number

    return " ".join(_NUMBER.sub(short, text).split())


def _flatten(element: Element) -> None:
    """Lift styles that all children share, and put in place of bare groups their children."""
    for child in element:
        _flatten(child)
    if element.tag == f"{SVG}g" and len(element) > 1:
        styles = {child.get("style") for child in element}
        shared = styles.pop() if len(styles) == 1 else None
        if shared and "opacity" not in shared and "style" not in element.attrib:
            element.set("style", shared)
            for child in element:
                del child.attrib["style"]
    kept: list[Element] = []
    for child in element:
        bare = child.tag == f"{SVG}g" and not child.attrib
        empty = child.tag in (f"{SVG}g", f"{SVG}defs") and len(child) == 0
        if not empty:
            kept.extend(child if bare else [child])
    element[:] = kept
