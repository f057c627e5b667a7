"""Names beside the points of a panel, where they hide least."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from src.report.style import INK, SMALL_SIZE

_DISTANCES = (0.08, 0.12, 0.18, 0.26, 0.36, 0.48, 0.62)  # of a text from its point, in inches
_ANGLES = np.deg2rad(np.arange(0, 360, 15))
_NEAR = 0.14  # inches, above which a line leads to the point
_POINT = 0.13  # inches that a symbol takes
_CHARACTER = (0.0079, 0.018)  # width and height in inches of a character of 1 pt
_PIECES = 25  # of a line that texts are to keep off

_Box = tuple[float, float, float, float]


def label_points(axes: Axes, points: NDArray[np.float64], texts: Sequence[str]) -> None:
    """Write each text near its point, where it meets the fewest lines, points and other texts.

    Args:
        axes: Panel whose place in the figure is known (`Figure.draw_without_rendering`). Of its
            lines only straight ones, of two points, are kept off.
        points: In data units, (P, 2).
        texts: (P,), of one line each.
    """
    dpi = axes.figure.dpi
    pixels = axes.transData.transform(points)
    taken = [_box(x, y, _POINT * dpi, _POINT * dpi) for x, y in pixels] + _line_boxes(axes)
    for at, point, text in zip(pixels, points, texts, strict=True):
        size = (_CHARACTER[0] * SMALL_SIZE * len(text) * dpi, _CHARACTER[1] * SMALL_SIZE * dpi)
        dx, dy = _best_offset(axes, at, size, taken, dpi)
        taken.append(_box(at[0] + dx, at[1] + dy, *size))
        far = max(abs(dx) - size[0] / 2, abs(dy) - size[1] / 2) > _NEAR * dpi
        lead = {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkB": 4}
        label = axes.annotate(
            text,
            point,
            (72 * dx / dpi, 72 * dy / dpi),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL_SIZE,
            arrowprops=lead if far else None,
        )
        label.set_in_layout(False)  # or the panel would make room and shrink under it


def _best_offset(
    axes: Axes,
    at: NDArray[np.float64],
    size: tuple[float, float],
    taken: Sequence[_Box],
    dpi: float,
) -> tuple[float, float]:
    """Return how far from its point the middle of a text should be, in pixels."""
    area = axes.get_window_extent()
    best, least = (0.0, 0.0), np.inf
    for distance in np.asarray(_DISTANCES) * dpi:
        for angle in _ANGLES:
            # The text's edge, not its middle, keeps the distance.
            dx = float(np.cos(angle) * (distance + size[0] / 2))
            dy = float(np.sin(angle) * (distance + size[1] / 2))
            box = _box(at[0] + dx, at[1] + dy, *size)
            cost = 0.5 * distance + sum(_overlap(box, other) for other in taken)
            cost += 1e4 * _outside(box, (area.x0, area.y0, area.x1, area.y1))
            if cost < least:
                best, least = (dx, dy), cost
    return best


def _line_boxes(axes: Axes) -> list[_Box]:
    """Return boxes around the pieces of the straight lines of a panel, in pixels."""
    boxes = []
    share = np.linspace(0, 1, _PIECES)
    for line in axes.get_lines():
        x, y = axes.transData.transform(line.get_xydata()).T
        if len(x) == 2 and np.isfinite([*x, *y]).all():
            size = (max(np.ptp(x) / (_PIECES - 1), 4), max(np.ptp(y) / (_PIECES - 1), 4))
            along = x[0] + share * (x[1] - x[0]), y[0] + share * (y[1] - y[0])
            boxes += [_box(px, py, *size) for px, py in zip(*along, strict=True)]
    return boxes


def _box(x: float, y: float, width: float, height: float) -> _Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(first: _Box, second: _Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: _Box, area: _Box) -> float:
    """Return by how many pixels a box reaches out of an area."""
    sides = (area[0] - box[0], area[1] - box[1], box[2] - area[2], box[3] - area[3])
    return sum(max(side, 0.0) for side in sides)
