import pickle

import numpy as np
import pandas as pd
import pytest

from src.report.clean_figures import (
    class_confidence_figure,
    class_counts_figure,
    confidence_profiles_figure,
)
from src.report.style import (
    class_labels,
    model_name,
    pair_name,
    per_cent,
    plain_text,
    save_figure,
    short_name,
)

NAMES = ["crane, bird", "crane, machine", "US$ and A$", "crow"]


def counts(images):
    images = np.asarray(images)
    share = images / max(images.sum(), 1)
    return pd.DataFrame({"label": range(len(images)), "images": images, "share": share})


def profiles(levels, images=4):
    rows = [
        {
            "level": level,
            "rank": rank,
            "images": images,
            "confidence": level / rank**3,
            # The mean of skewed values may lie above the 90 % quantile.
            "confidence_low": 0.5 * level / rank**3,
            "confidence_high": 0.9 * level / rank**3,
        }
        for level in levels
        for rank in range(1, 6)
    ]
    return pd.DataFrame(rows)


def classes(count, images=None):
    images = np.full(count, 2) if images is None else np.asarray(images)
    confidence = np.linspace(0.99, 0.2, count)
    return pd.DataFrame(
        {
            "label": range(count),
            "images": images,
            "confidence": confidence,
            "confidence_sd": np.where(images > 1, 0.1, np.nan),
            "true_confidence": confidence,
            "correct": images,
            "accuracy": 1.0,
        }
    )


def numbered(count):
    return [f"class number {place}" for place in range(count)]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def tick_texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_most_frequent_classes_come_first_with_count_and_share():
    figure = class_counts_figure(counts([1, 4, 0, 3]), NAMES, dataset="$5 and $6 notes")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [4, 3, 1]
    assert tick_texts(axes.yaxis) == ["crane (1)", "crow", "crane (0)"]
    assert texts_of(axes) == ["4 (50 %)", "3 (37.5 %)", "1 (12.5 %)"]
    assert figure.get_suptitle() == r"\$5 and \$6 notes, 8 images, 3 of 4 classes"
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first is on top


def test_more_than_twenty_classes_get_the_counts_of_counts():
    figure = class_counts_figure(counts([3] * 10 + [1] * 12 + [5]), numbered(23))
    top, rest = figure.axes
    assert len(top.patches) == 20 and top.patches[0].get_width() == 5
    assert tick_texts(rest.yaxis) == ["1", "2", "3", "4", "5"]
    assert [bar.get_width() for bar in rest.patches] == [12, 0, 10, 0, 1]
    assert rest.get_title() == "all 23 classes"


@pytest.mark.parametrize(
    ("images", "ranges", "classes_in"),
    [
        ([1, 2, 3, 4, 7, 8, 100] + [1] * 20, "1|2 to 3|4 to 7|8 to 15", [21, 2, 2, 1]),
        ([732, 1300] + [1000] * 20, "732 to 779|780 to 827", [1, 0]),
    ],
)
def test_counts_that_vary_a_lot_are_put_into_ranges(images, ranges, classes_in):
    rest = class_counts_figure(counts(images), numbered(len(images))).axes[1]
    names, widths = tick_texts(rest.yaxis), [bar.get_width() for bar in rest.patches]
    start = ranges.split("|")
    assert names[: len(start)] == start and widths[: len(start)] == classes_in
    assert len(names) == len(widths) <= 14 and sum(widths) == len(images)
    assert widths[-1] == 1  # the largest class is in the last range


def test_profiles_have_a_panel_per_level_with_bars_whiskers_and_n():
    figure = confidence_profiles_figure(profiles([1.0, 0.6, 0.8]), model="A$ or B$")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"initial confidence {level} %, n = 4" for level in (100, 80, 60)]
    first = figure.axes[0]
    heights = [bar.get_height() for bar in first.patches]
    np.testing.assert_allclose(heights, [100 / rank**3 for rank in range(1, 6)])
    (whiskers,) = first.collections
    ends = [path.vertices[:, 1] for path in whiskers.get_paths()]
    np.testing.assert_allclose(ends[1], [6.25, 11.25])
    assert texts_of(first)[:2] == ["100", "12.5"]
    assert figure.get_suptitle() == r"A\$ or B\$: top 5 confidences by initial confidence"


def test_a_level_without_images_says_so(tmp_path):
    frame = profiles([1.0, 0.95])
    empty = frame["level"] == 0.95
    frame.loc[empty, "images"] = 0
    frame.loc[empty, ["confidence", "confidence_low", "confidence_high"]] = np.nan
    figure = confidence_profiles_figure(frame, model="m")
    assert texts_of(figure.axes[1]) == ["no image"] and not figure.axes[1].patches
    assert figure.axes[1].get_title() == "initial confidence 95 %, n = 0"
    save_figure(figure, tmp_path / "profiles.png")


def test_profiles_with_fewer_ranks_or_a_hole_in_the_grid_draw(tmp_path):
    frame = profiles([1.0, 0.9, 0.8, 0.7], images=1)
    figure = confidence_profiles_figure(frame[frame["rank"] <= 2], model="m")
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
    assert all(len(axes.patches) == 2 for axes in figure.axes[:4])
    save_figure(figure, tmp_path / "profiles.png")


def test_few_classes_are_all_named_in_descending_order(tmp_path):
    frame = classes(4, images=[1, 2, 3, 4]).iloc[[2, 0, 3, 1]]
    figure = class_confidence_figure(frame, NAMES, model="m")
    (axes,) = figure.axes
    assert tick_texts(axes.yaxis) == [
        "crane (0), n = 1",
        "crane (1), n = 2",
        r"US\$ and A\$, n = 3",
        "crow, n = 4",
    ]
    means = lines_of(axes)["mean of a class"].get_xdata()
    np.testing.assert_allclose(means, 100 * np.linspace(0.99, 0.2, 4))
    (deviations,) = axes.collections
    ends = [path.vertices[:, 0] for path in deviations.get_paths()]
    np.testing.assert_allclose(
        ends[1], [100 * (0.99 - 0.79 / 3) - 10, 100 * (0.99 - 0.79 / 3) + 10]
    )
    np.testing.assert_allclose(ends[3], [10, 30])
    assert figure.get_suptitle() == "m: mean confidence per class, 4 classes, 10 images"
    save_figure(figure, tmp_path / "classes.png")


def test_many_classes_fall_from_left_to_right_with_both_ends_named(tmp_path):
    frame = classes(40, images=[1] * 20 + [2] * 20)
    figure = class_confidence_figure(frame, numbered(40), model="m")
    axes, ends = figure.axes
    line = lines_of(axes)["mean of a class"]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 41))
    np.testing.assert_allclose(line.get_ydata(), 100 * frame["confidence"])
    deviations = lines_of(axes)["one standard deviation, cut at 0 and 100 %"]
    x = deviations.get_xdata().reshape(20, 3)
    np.testing.assert_array_equal(x[:, 0], np.arange(21, 41))
    np.testing.assert_array_equal(x[:, 1], x[:, 0])
    y = deviations.get_ydata().reshape(20, 3)
    np.testing.assert_allclose(y[-1, :2], [10, 30])
    assert np.isnan(y[:, 2]).all()
    highest, lowest = (text.split("\n") for text in texts_of(ends))
    assert highest == [
        "highest mean confidence",
        *(f"class number {k}: {99 - 79 * k / 39:.4g} %, n = 1" for k in range(3)),
    ]
    assert lowest[-1] == "class number 39: 20 %, n = 2" and len(lowest) == 4
    assert [tick_texts(axes.xaxis)[end] for end in (0, -1)] == ["1", "40"]
    save_figure(figure, tmp_path / "classes.png")


def test_thousands_of_classes_are_thinned_and_the_legend_says_so():
    figure = class_confidence_figure(classes(5000), numbered(5000), model="m")
    lines = lines_of(figure.axes[0])
    means = lines["mean of a class"]
    assert len(means.get_xdata()) == 600
    assert [means.get_xdata()[end] for end in (0, -1)] == [1, 5000]
    every = lines["one standard deviation, cut at 0 and 100 %, every 13th class"]
    assert len(every.get_xdata()) == 3 * 385


def test_deviations_stay_between_0_and_100_per_cent():
    frame = classes(30).assign(confidence_sd=0.5)
    lines = lines_of(class_confidence_figure(frame, numbered(30), model="m").axes[0])
    y = lines["one standard deviation, cut at 0 and 100 %"].get_ydata()
    assert np.nanmin(y) == 0 and np.nanmax(y) == 100


DRAWERS = {
    "counts": (lambda frame: class_counts_figure(frame, NAMES), counts([1]), "images"),
    "profiles": (
        lambda frame: confidence_profiles_figure(frame, model="m"),
        profiles([1.0], images=1),
        "confidence",
    ),
    "classes": (
        lambda frame: class_confidence_figure(frame, NAMES, model="m"),
        classes(1, images=[1]),
        "confidence",
    ),
}


@pytest.mark.parametrize("name", DRAWERS)
def test_one_image_of_one_class_draws_and_can_be_copied(name, tmp_path):
    draw, frame, _ = DRAWERS[name]
    figure = draw(frame)
    save_figure(pickle.loads(pickle.dumps(figure)), tmp_path / "one.png")
    assert figure.get_size_inches()[0] <= 9


@pytest.mark.parametrize("name", DRAWERS)
def test_tables_without_numbers_say_why_nothing_is_drawn(name):
    draw, frame, column = DRAWERS[name]
    with pytest.raises(ValueError, match="nothing to draw: the table has no row"):
        draw(frame.iloc[:0])
    with pytest.raises(ValueError, match=f"no row of the table has a number for .*{column}"):
        draw(frame.assign(**{column: np.nan}))
    with pytest.raises(ValueError, match=f"lacks the columns {column}"):
        draw(frame.drop(columns=column))


def test_all_wrong_draws(tmp_path):
    frame = classes(2).assign(correct=0, accuracy=0.0, true_confidence=0.0)
    save_figure(class_confidence_figure(frame, NAMES, model="m"), tmp_path / "wrong.png")


def test_classes_without_images_or_names_are_refused():
    with pytest.raises(ValueError, match="no class has an image"):
        class_counts_figure(counts([0, 0]), NAMES)
    with pytest.raises(ValueError, match="class 4 has no name: class_names holds 4 names"):
        class_counts_figure(counts([1] * 5), NAMES)
    with pytest.raises(ValueError, match="class -1 has no name"):
        class_labels([-1], NAMES)


def test_names_are_never_read_as_formulas(tmp_path):
    names = ["$x_1$", "a $ b", r"c \$ d", "$\\frac$ <b>&", "e\nf\tg", ""]
    figure = class_confidence_figure(classes(6), names, model="$m$")
    save_figure(figure, tmp_path / "names.png")
    assert figure._suptitle.get_text().startswith(r"\$m\$")
    shown = [label._preprocess_math(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert [text.removesuffix(", n = 2") for text, is_math in shown if is_math is False] == [
        *names[:4],
        "e f g",
        "class 5",
    ]


def test_a_cut_never_parts_a_dollar_sign_from_its_escape():
    assert short_name("1234567$$", limit=9) == r"1234567\$\$"
    assert short_name("1234567$$ and more", limit=9) == "1234567\\$\u2026"
    assert plain_text(" a \n b ") == "a b"


def test_long_model_names_are_cut_in_the_middle():
    assert model_name("resnet50") == "resnet50"
    assert model_name("a$" * 6, 12) == r"a\$" * 6
    assert model_name("0123456789", 7) == "012\u2026789"
    assert pair_name("0123456789", "b", 6) == "012\u202689 \u2192 b"


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100"), (0.5, "50"), (0.8449, "84.5"), (0.00042, "0.042"), (0.0, "0"), (0.0099, "1")],
)
def test_per_cent(share, text):
    assert per_cent(share) == text
