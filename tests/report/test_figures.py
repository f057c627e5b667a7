import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from src.analysis import matrix, rates
from src.report.figures import curves, heat_map
from src.report.style import PALETTE, save_figure, short_name, thin_ticks

BUDGETS = [0.0, 0.25, 4.0]


def predictions(targets, right):
    """Make one row per image; ``right`` maps (target, eps) to the images that are correct."""
    rows = [
        {
            "index": index,
            "label": 0,
            "target": target,
            "eps_255": eps,
            "predicted": 0 if index in right(target, eps) else 1,
            "confidence": 0.75,
            "true_confidence": 0.5,
        }
        for target in targets
        for eps in BUDGETS
        for index in range(4)
    ]
    return pd.DataFrame(rows)


def one_less_per_budget(target, eps):
    return range({0.0: 4, 0.25: 3, 4.0: 1}[eps])


def rates_of(targets, right=one_less_per_budget, source="m0"):
    return rates(predictions(targets, right), source, targets)


def names(count):
    return [f"m{i}" for i in range(count)]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_draw_the_rates_in_per_cent():
    figure = curves(rates_of(names(3)), "m0", "fgsm", dataset="photos", protocol="joint")
    accuracy, confidence = figure.axes
    assert len(accuracy.get_lines()) == 3 and len(confidence.get_lines()) == 6
    line = accuracy.get_lines()[0]
    assert list(line.get_xdata()) == BUDGETS
    assert list(line.get_ydata()) == [100.0, 75.0, 25.0]
    predicted, true = confidence.get_lines()[:2]
    assert list(predicted.get_ydata()) == [75.0] * 3 and list(true.get_ydata()) == [50.0] * 3
    assert (predicted.get_linestyle(), true.get_linestyle()) == ("-", "--")
    assert figure.get_suptitle() == "fgsm made on m0, photos, protocol: joint"
    assert legend_of(figure) == ["m0 (white box), n = 4", "m1, n = 4", "m2, n = 4"]
    assert (accuracy.get_ylabel(), confidence.get_ylabel()) == (
        "robust accuracy (%)",
        "mean confidence (%)",
    )


def test_the_band_is_the_wilson_interval():
    table = rates_of(["m0"])
    (band,) = curves(table, "m0", "fgsm").axes[0].collections
    heights = band.get_paths()[0].vertices
    for eps, low, high in zip(
        BUDGETS, table["robust_accuracy_low"], table["robust_accuracy_high"], strict=True
    ):
        at_budget = heights[np.isclose(heights[:, 0], eps), 1]
        assert at_budget.min() == pytest.approx(100 * low)
        assert at_budget.max() == pytest.approx(100 * high)


def test_eight_targets_differ_in_colour_and_marker():
    lines = curves(rates_of(names(8)), "m0", "fgsm").axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 8
    assert len({line.get_marker() for line in lines}) == 8
    assert lines[0].get_linewidth() > lines[1].get_linewidth()


def test_more_targets_than_colours_are_drawn():
    figure = curves(rates_of(names(len(PALETTE) + 2)), "m0", "fgsm")
    assert len(legend_of(figure)) == len(PALETTE) + 2


def test_curves_of_an_empty_denominator_say_so(tmp_path):
    figure = curves(rates_of(["m0"], right=lambda target, eps: []), "m0", "fgsm")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no image in the denominator"]
    assert np.isnan(figure.axes[0].get_lines()[0].get_ydata()).all()
    assert legend_of(figure) == ["m0 (white box), n = 0"]
    save_figure(figure, tmp_path / "empty.png")


def test_curves_at_a_single_budget_draw(tmp_path):
    table = rates_of(["m0"])
    save_figure(curves(table[table["eps_255"] == 4], "m0", "fgsm"), tmp_path / "one.png")


def cell_texts(figure):
    axes = figure.axes[0]
    return {(text.get_position()[1], text.get_position()[0]): text for text in axes.texts}


def test_heat_map_writes_every_cell_and_outlines_the_diagonal():
    targets = names(3)
    by_source = {source: rates_of(targets, source=source) for source in targets}
    figure = heat_map(matrix(by_source, 0.25), dataset="photos", attack="fgsm", protocol="joint")
    axes = figure.axes[0]
    texts = cell_texts(figure)
    assert {place: text.get_text() for place, text in texts.items()} == {
        (row, column): "4 / 4 = 100.00%" if row == 0 else "3 / 4 = 75.00%"
        for row in range(4)
        for column in range(3)
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == targets
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", *targets]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    centres = {
        (box.get_y() + box.get_height() / 2, box.get_x() + box.get_width() / 2) for box in boxes
    }
    assert {(round(y, 6), round(x, 6)) for y, x in centres} == {(1, 0), (2, 1), (3, 2)}
    assert axes.images[0].get_clim() == (0, 100)
    assert figure.axes[1].get_ylabel() == "robust accuracy (%)"
    assert figure.get_suptitle() == "fgsm, photos, $\\epsilon$ = 0.25/255, protocol: joint"


def test_wide_heat_maps_keep_the_whole_cell_on_two_lines():
    figure = heat_map(matrix({"m0": rates_of(names(8))}, 4))
    assert cell_texts(figure)[1, 7].get_text() == "1 / 4\n= 25.00%"


def test_heat_map_shows_empty_denominators_and_missing_pairs(tmp_path):
    empty = rates_of(["m0", "m1"], right=lambda target, eps: [])
    figure = heat_map(matrix({"m0": empty, "m1": empty[empty["target"] == "m0"]}, 4))
    texts = cell_texts(figure)
    assert texts[1, 1].get_text() == "0 / 0 = n/a"
    assert texts[2, 1].get_text() == "not run"
    assert figure.axes[0].images[0].get_array().mask.sum() == 4
    save_figure(figure, tmp_path / "empty.png")


def aimed_at_one(targets, source="m0"):
    """Make the rates of a targeted attack that reaches class 1 wherever it flips."""
    table = predictions(targets, one_less_per_budget)
    return rates(table.assign(target_label=1.0), source, targets)


def test_figures_of_targeted_attacks_show_the_success_rate():
    table = aimed_at_one(names(2))
    figure = curves(table, "m0", "fgsm")
    assert figure.axes[0].get_ylabel() == "targeted success rate (%)"
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [0.0, 25.0, 75.0]
    figure = heat_map(matrix({"m0": table}, 4))
    assert figure.axes[1].get_ylabel() == "targeted success rate (%)"
    assert cell_texts(figure)[1, 0].get_text() == "3 / 4 = 75.00%"
    assert cell_texts(figure)[0, 0].get_text() == "0 / 4 = 0.00%"
    figure = heat_map(matrix({"m0": rates_of(["m0"])}, 4, "success_rate"))
    assert figure.axes[1].get_ylabel() == "success rate (%)"


def test_members_of_an_ensemble_are_outlined_and_marked():
    table = rates(predictions(names(3), one_less_per_budget), "m0+m2", names(3), "all")
    boxes = heat_map(matrix({"m0+m2": table}, 4)).axes[0].patches
    assert [round(box.get_x() + box.get_width() / 2) for box in boxes] == [0, 2]
    figure = curves(table, "m0+m2", "fgsm")
    assert legend_of(figure) == ["m0 (white box), n = 4", "m1, n = 4", "m2 (white box), n = 4"]


def luminance(colour):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_cell_text_is_readable_on_every_colour(share):
    table = pd.DataFrame(
        {
            "source": ["m0"],
            "target": ["m1"],
            "eps_255": [8.0],
            "robust_accuracy": [share],
            "cell": ["k / n"],
        }
    )
    figure = heat_map(table)
    image = figure.axes[0].images[0]
    light, dark = sorted(
        [
            luminance(image.to_rgba([[100 * share]])[0, 0, :3]),
            luminance(figure.axes[0].texts[0].get_color()),
        ],
        reverse=True,
    )
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def test_saved_figures_are_equal_bytes_and_leave_nothing_else(tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(curves(rates_of(names(2)), "m0", "fgsm"), tmp_path / "new" / name)
    first, second = ((tmp_path / "new" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert b"matplotlib" not in first
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = curves(rates_of(["m0"]), "m0", "fgsm")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(ValueError, match=r"figure\.png cannot be written: disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_long_titles_are_wrapped_inside_the_figure():
    figure = heat_map(
        matrix({"m0": rates_of(["m0"])}, 4),
        dataset="a data set with a long name",
        attack="an attack with a long name",
        protocol="source_correct",
    )
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ballplayer, baseball player", "ballplayer"),
        ("hubble_deep_field", "hubble_deep_field"),
        ("black-and-tan coonhound", "black-and-tan coo\u2026"),
        ("", ""),
    ],
)
def test_short_name(name, short):
    assert short_name(name) == short


def test_ticks_keep_both_ends_and_a_distance():
    assert thin_ticks([0, 0.25, 0.5, 1, 2, 4, 8, 12, 16]) == [0, 1, 2, 4, 8, 12, 16]
    assert thin_ticks([0, 15.9, 16]) == [0, 16]
    assert thin_ticks([8]) == [8]
