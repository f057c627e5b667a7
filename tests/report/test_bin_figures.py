import pickle

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from src.analysis.confidence_bins import by_initial_confidence
from src.analysis.hypothesis import initial_confidence_effect
from src.analysis.phenomena import KINDS, kind_shares, phenomena
from src.report.bin_figures import (
    confidence_bins_figure,
    effects_figure,
    kind_shares_figure,
)
from src.report.style import RIGHT, WRONG, save_figure

BUDGETS = [0.0, 1.0, 4.0, 16.0]


def bins(images, budgets=BUDGETS):
    """Make a table with one bin for each number of images, from the highest down."""
    rows = [
        {
            "bin_low": 0.95 - 0.05 * place,
            "bin_high": 1 - 0.05 * place,
            "eps_255": eps,
            "n": n,
            "still_correct": n,
            "robust_accuracy": 0.5,
            "robust_accuracy_low": 0.4,
            "robust_accuracy_high": 0.625,
            "confidence": 0.75 - eps / 100,
            "confidence_low": 0.7 if n > 1 else np.nan,
            "confidence_high": 0.8 if n > 1 else np.nan,
            "true_confidence": 0.5,
        }
        for place, n in enumerate(images)
        for eps in budgets
    ]
    return pd.DataFrame(rows)


def draw_bins(frame):
    return confidence_bins_figure(frame, attack="fgsm", source="m0", target="m1")


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def luminance(colour):
    return float(np.dot(to_rgb(colour), [0.2126, 0.7152, 0.0722]))


def test_each_bin_is_a_line_in_both_panels_with_its_band_and_n():
    figure = draw_bins(bins([40, 17]))
    accuracy, confidence = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "robust accuracy (%)",
        "mean confidence (%)",
    ]
    for axes, values in ((accuracy, [50] * 4), (confidence, [75, 74, 71, 59])):
        for line in axes.get_lines():
            assert list(line.get_xdata()) == BUDGETS
            np.testing.assert_allclose(line.get_ydata(), values)
        assert len(axes.get_lines()) == len(axes.collections) == 2
    band = accuracy.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (40, 62.5)
    band = confidence.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (70, 80)
    assert legend_of(figure) == ["95 to 100 %, n = 40", "90 to 95 %, n = 17", "95 % interval"]
    assert figure.get_suptitle() == "fgsm made on m0, shown to m1, n = 57"


def test_small_bins_are_thin_without_a_band_and_the_legend_says_so():
    figure = draw_bins(bins([10, 9, 1]))
    for axes in figure.axes:
        widths = [line.get_linewidth() for line in axes.get_lines()]
        assert widths[0] > widths[1] == widths[2]
        assert len(axes.collections) == 1
    assert legend_of(figure)[-2:] == ["95 % interval", "thin: n < 10, no interval"]
    assert "95 % interval" not in legend_of(draw_bins(bins([9])))
    assert "thin: n < 10, no interval" not in legend_of(draw_bins(bins([10])))


def test_twenty_bins_grow_lighter_and_alternate(tmp_path):
    figure = draw_bins(bins(range(3, 23)).sample(frac=1, random_state=0))
    lines = figure.axes[0].get_lines()
    shades = [luminance(line.get_color()) for line in lines]
    assert len(lines) == 20 and shades == sorted(shades)
    assert len({to_hex(line.get_color()) for line in lines}) == 20
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 10
    assert legend_of(figure)[0] == "95 to 100 %, n = 3"
    assert legend_of(figure)[19] == "0 to 5 %, n = 22"
    handles = figure.legends[0].get_lines()[:20]
    assert [line.get_color() for line in handles] == [line.get_color() for line in lines]
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    assert figure.axes[1].get_window_extent().x1 < box.x0 and box.x1 <= figure.bbox.x1


def test_small_budgets_get_a_square_root_scale(tmp_path):
    figure = draw_bins(bins([9], budgets=[0.0, 0.25, 1.0, 16.0]))
    axes = figure.axes[0]
    assert axes.get_xlabel() == "budget $\\epsilon$ (1/255), square-root scale"
    assert axes.get_xlim()[0] < 0 and axes.get_xlim()[1] > 16
    places = axes.transData.transform([(eps, 0) for eps in (0.0, 0.25, 1.0, 16.0)])[:, 0]
    np.testing.assert_allclose(np.diff(places) / (places[-1] - places[0]), [0.125, 0.125, 0.75])
    save_figure(pickle.loads(pickle.dumps(figure)), tmp_path / "root.png")
    assert draw_bins(bins([9])).axes[0].get_xlabel() == "budget $\\epsilon$ (1/255)"


def predictions(right, initial=(0.97, 0.72)):
    """Make images 0, 1, ... of class 0; ``right`` holds the budgets at which each is right."""
    rows = [
        {
            "index": index,
            "label": 0,
            "target": "m0",
            "eps_255": eps,
            "predicted": 0 if eps in budgets else 1,
            "confidence": confidence,
            "true_confidence": confidence if eps in budgets else 0.1,
        }
        for index, (budgets, confidence) in enumerate(zip(right, initial, strict=True))
        for eps in BUDGETS
    ]
    return pd.DataFrame(rows)


def test_what_the_statistics_return_is_drawn(tmp_path):
    table = predictions([[0, 1, 16], [0]])
    figure = draw_bins(by_initial_confidence(table, "m0", "m0"))
    assert legend_of(figure)[:2] == ["95 to 100 %, n = 1", "70 to 75 %, n = 1"]
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [100, 100, 0, 100]
    save_figure(figure, tmp_path / "bins.png")
    shares = kind_shares(phenomena(table, "m0", "m0"))
    figure = kind_shares_figure(shares, KINDS, attack="fgsm", source="m0", target="m0")
    drawn = {axes.get_title().replace("\n", " "): axes for axes in figure.axes}
    assert list(drawn) == list(KINDS.values())
    back = drawn[KINDS["bounce_back"]]
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in back.patches}
    assert heights == {95: 100, 75: 0}
    save_figure(figure, tmp_path / "kinds.png")
    effect = initial_confidence_effect(table, "m0", "m0", "fgsm")
    with pytest.raises(ValueError, match="no row of the table has a number for rho"):
        effects_figure(pd.DataFrame([vars(effect)]))  # two images are too few


@pytest.mark.parametrize("right", [[], [[1.0], [16.0]]], ids=["empty", "all wrong when clean"])
def test_without_an_initially_correct_image_the_reason_is_said(right):
    table = predictions(right, initial=(0.9,) * len(right)) if right else predictions([[0]], [0.9])
    if not right:
        table = table.assign(predicted=1)
    with pytest.raises(ValueError, match="nothing to draw: the table has no row"):
        draw_bins(by_initial_confidence(table, "m0", "m0"))
    with pytest.raises(ValueError, match="nothing to draw: the table has no row"):
        kind_shares_figure(kind_shares(phenomena(table, "m0", "m0")), KINDS)


def shares(kinds=("never_flips", "bounce_back", "below_8_bits"), n=(8, 1)):
    rows = [
        {
            "bin_low": 0.9 - 0.5 * place,
            "bin_high": 1 - 0.5 * place,
            "n": images,
            "kind": kind,
            "images": number,
            "share": number / images,
            "share_low": 0.01,
            "share_high": 0.99,
        }
        for place, images in enumerate(n)
        for number, kind in enumerate(kinds)
        if number <= images
    ]
    return pd.DataFrame(rows)


def test_kinds_have_a_panel_each_with_counts_above_the_bars(tmp_path):
    words = {"below_8_bits": "costs $1 or $2", "never_flips": "stays", "bounce_back": "returns"}
    figure = kind_shares_figure(shares(), words, attack="fgsm", source="m0", target="m1")
    small, never, back, hidden = figure.axes
    assert [axes.get_title() for axes in (small, never, back)] == [
        r"costs \$1 or \$2",
        "stays",
        "returns",
    ]
    assert not hidden.get_visible()
    assert [bar.get_height() for bar in small.patches] == [25]
    assert [bar.get_height() for bar in back.patches] == [12.5, 100]
    assert [text.get_text() for text in back.texts] == ["1\n8", "1\n1", "images\nof n ="]
    whisker = back.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(whisker, [[95, 1], [95, 99]])
    assert figure.get_suptitle() == "fgsm made on m0, shown to m1, n = 9"
    save_figure(figure, tmp_path / "kinds.png")


def test_kinds_that_are_not_in_the_table_are_refused():
    with pytest.raises(ValueError, match="no row of the table is of the kinds dips"):
        kind_shares_figure(shares(), {"dips": "dips"})
    with pytest.raises(ValueError, match="lacks the columns share_low"):
        kind_shares_figure(shares().drop(columns="share_low"), KINDS)
    with pytest.raises(ValueError, match="no row of the table has a number for n, share"):
        kind_shares_figure(shares().assign(share=np.nan), KINDS)


def effects(*rows):
    columns = ["attack", "source", "target", "rho", "rho_low", "rho_high", "verdict"]
    return pd.DataFrame(rows, columns=columns).assign(n=50, flipped=20)


def test_effects_have_a_row_per_pair_with_interval_verdict_and_counts(tmp_path):
    frame = effects(
        ("fgsm", "m0", "m0", 0.4, 0.2, 0.6, "supported"),
        ("fgsm", "m0", "$a$ (1)", -0.3, -0.5, -0.1, "contradicted"),
        ("bim", "m0", "m0", 0.0, -0.2, 0.25, "undecided"),
        ("bim", "m0+m2", "m2", np.nan, np.nan, np.nan, "undecided"),
    )
    figure = effects_figure(frame)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "fgsm:",
        "m0 \u2192 m0 (white box)",
        "m0 \u2192 \\$a\\$ (1)",
        "bim:",
        "m0 \u2192 m0 (white box)",
        "m0+m2 \u2192 m2 (white box)",
    ]
    bold = [label.get_fontweight() == "bold" for label in axes.get_yticklabels()]
    assert bold == [False, True, False, False, True, True]
    heights = dict(zip(names, axes.get_yticks(), strict=True))
    points = {line.get_ydata()[0]: line for line in axes.get_lines() if len(line.get_xdata()) == 1}
    against = points[heights["m0 \u2192 \\$a\\$ (1)"]]
    assert list(against.get_xdata()) == [-0.3] and against.get_color() == WRONG[1]
    assert points[axes.get_yticks()[1]].get_color() == RIGHT[1]
    assert points[axes.get_yticks()[1]].get_marker() != against.get_marker()
    spans = [
        (line.get_ydata()[0], list(line.get_xdata()))
        for line in axes.get_lines()
        if line.get_xdata()[0] != line.get_xdata()[-1] and line.get_linewidth() > 1.5
    ]
    assert (axes.get_yticks()[1], [0.2, 0.6]) in spans and len(spans) == 3
    said = [text.get_text() for text in axes.texts]
    assert said == [
        "$\\rho$ = 0.40 [0.20, 0.60], 20 of 50 flip",
        "$\\rho$ = \u22120.30 [\u22120.50, \u22120.10], 20 of 50 flip",
        "$\\rho$ = 0.00 [\u22120.20, 0.25], 20 of 50 flip",
        "$\\rho$: not estimated, 20 of 50 flip",
    ]
    assert len(legend_of(figure)) == 3
    low, high = axes.get_xlim()
    assert low < -0.5 and high > 0.6
    save_figure(figure, tmp_path / "effects.png")
    figure.draw_without_rendering()
    edge = max(text.get_window_extent().x1 for text in axes.texts)
    assert edge <= figure.bbox.x1
    assert min(label.get_window_extent().x0 for label in axes.get_yticklabels()) >= 0


def test_one_effect_without_an_interval_draws(tmp_path):
    frame = effects(("fgsm", "m0", "m1", 1.0, np.nan, np.nan, "undecided"))
    figure = effects_figure(frame)
    assert figure.axes[0].texts[0].get_text() == "$\\rho$ = 1.00, 20 of 50 flip"
    save_figure(figure, tmp_path / "one.png")


def test_effects_without_numbers_say_why_nothing_is_drawn():
    frame = effects(("fgsm", "m0", "m1", np.nan, np.nan, np.nan, "undecided"))
    with pytest.raises(ValueError, match="no row of the table has a number for rho"):
        effects_figure(frame)
    with pytest.raises(ValueError, match="nothing to draw: the table has no row"):
        effects_figure(frame.iloc[:0])
    with pytest.raises(ValueError, match="lacks the columns verdict"):
        effects_figure(frame.drop(columns="verdict"))


def test_bins_without_numbers_say_why_nothing_is_drawn(tmp_path):
    frame = bins([1])
    with pytest.raises(ValueError, match="no row of the table has a number for eps_255, n, robust"):
        draw_bins(frame.assign(robust_accuracy=np.nan, confidence=np.nan))
    save_figure(draw_bins(frame.assign(robust_accuracy=0.0)), tmp_path / "wrong.png")
    figure = draw_bins(bins([1], budgets=[0.0]))
    save_figure(figure, tmp_path / "clean.png")
    assert figure.get_size_inches()[0] <= 9
