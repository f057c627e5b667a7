"""The picture of the packages by floors, from the layers that `pyproject.toml` states."""

import ast
import textwrap
import tomllib

import altair as alt
import pandas as pd
import vl_convert
from catalogue import REPOSITORY

WIDTH, HEIGHT, LETTERS = 1000, 62, 15
"""Pixels of the picture's width and of a floor's height, and letters per 100 pixels of a line."""


def floors() -> list[list[str]]:
    """Return the packages of each floor, from the command line on top down to the helpers."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [[name.removeprefix("src.") for name in layer.split(" | ")] for layer in layers]


def draw() -> str:
    """Return the picture as SVG: a box per package, with the first line of its docstring."""
    boxes = []
    for floor, names in enumerate(floors()):
        for place, name in enumerate(names):
            box = {"name": name, "does": _purpose(name, len(names)), "floor": floor}
            boxes.append(box | {"low": place / len(names), "high": (place + 1) / len(names)})
    base = alt.Chart(pd.DataFrame(boxes).assign(middle=lambda rows: (rows.low + rows.high) / 2))
    across = alt.Scale(domain=[0, 1])
    x = alt.X("low:Q", axis=None, scale=across)
    y = alt.Y("floor:O", axis=None, scale=alt.Scale(paddingInner=0.12))
    rectangle = base.mark_bar(fill="#eef3f8", stroke="#8aa4bf", cornerRadius=4)
    middle = base.encode(x=alt.X("middle:Q", axis=None, scale=across), y=y)
    chart = (
        rectangle.encode(x=x, x2="high:Q", y=y)
        + middle.mark_text(dy=-16, fontSize=14, fontWeight="bold").encode(text="name:N")
        + middle.mark_text(dy=0, fontSize=11, lineBreak="\n", baseline="top").encode(text="does:N")
    )
    chart = chart.properties(width=WIDTH, height=HEIGHT * len(floors())).configure_view(stroke=None)
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def _purpose(name: str, neighbours: int) -> str:
    """Return the first words of a package's docstring in at most two lines of its box."""
    folder = REPOSITORY / "src" / name
    file = folder / "__init__.py"
    file = file if file.is_file() else folder.with_suffix(".py")
    said = (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0]
    said = said.removesuffix(".").partition(": `python")[0]
    width = WIDTH // neighbours * LETTERS // 100
    return "\n".join(textwrap.wrap(said, width, max_lines=2, placeholder=" ..."))
