import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from scipy.stats import linregress

from src.report.frequency_figures import (
    filtered_figure,
    low_pass_figure,
    similarity_figure,
    spectra_figure,
)
from src.report.point_labels import label_points
from src.report.style import MARKERS, PALETTE, save_figure

JOBS = [("fgsm", "m0"), ("fgsm", "m1"), ("bim", "m0")]
EDGES = np.linspace(0, 0.7, 8)


def spectrum(kind, share, attack, source, eps=8.0, n=5):
    return pd.DataFrame(
        {
            "kind": kind,
            "eps_255": 0.0 if kind == "image" else eps,
            "frequency_low": EDGES[:-1],
            "frequency_high": EDGES[1:],
            "coefficients": [1, 2, 3, 4, 5, 3, 2],
            "n": n,
            "power": 1.0,
            "share": share,
            "share_sd": 0.01,
            "source": source,
            "attack": attack,
        }
    )


def spectra(jobs=JOBS, image=None):
    falling = np.array([0.64, 0.16, 0.08, 0.06, 0.04, 0.02, 0.0]) if image is None else image
    flat = np.full(7, 1 / 7)
    parts = [
        part
        for attack, source in jobs
        for part in (
            spectrum("image", falling, attack, source),
            spectrum("perturbation", flat, attack, source, n=4),
        )
    ]
    return pd.concat(parts, ignore_index=True)


def lines_of(axes):
    return {
        line.get_label(): line
        for line in axes.get_lines()
        if len(line.get_xdata()) and not line.get_label().startswith("_")
    }


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_spectra_show_the_images_once_and_every_perturbation(tmp_path):
    figure = spectra_figure(spectra())
    (axes,) = figure.axes
    lines = lines_of(axes)
    assert list(lines) == [
        "images, n = 5",
        "fgsm on m0, n = 4",
        "fgsm on m1, n = 4",
        "bim on m0, n = 4",
        "white noise",
        "0.25 cycles per pixel",
    ]
    image = lines["images, n = 5"]
    np.testing.assert_allclose(image.get_xdata(), np.arange(0.05, 0.6, 0.1))  # the last has none
    np.testing.assert_allclose(image.get_ydata(), [64, 16, 8, 6, 4, 2])
    noise = np.array([1, 2, 3, 4, 5, 3, 2]) / 20
    np.testing.assert_allclose(lines["white noise"].get_ydata(), 100 * noise)
    first, second, third = list(lines.values())[1:4]
    assert first.get_color() == third.get_color() != second.get_color()
    assert first.get_linestyle() == second.get_linestyle() != third.get_linestyle()
    assert axes.get_yscale() == "log"
    assert figure.get_suptitle() == "power spectra, perturbations at $\\epsilon$ = 8/255"
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "spatial frequency (cycles per pixel)",
        "share of the power in each bin (%)",
    )
    save_figure(pickle.loads(pickle.dumps(figure)), tmp_path / "spectra.png")
    assert figure.get_size_inches()[0] <= 9


def test_jobs_with_different_images_show_each_of_them():
    other = spectra(JOBS[:1], image=np.full(7, 1 / 7))
    other["frequency_low"] += 0.01  # as of images of another size
    figure = spectra_figure(pd.concat([spectra(JOBS[1:]), other]))
    noise = lines_of(figure.axes[0])["white noise"]
    assert len(noise.get_xdata()) == 7
    grey = {line.get_color() for line in figure.axes[0].get_lines() if line.get_linewidth() == 3}
    wide = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 3]
    assert len(wide) == 2 and len(grey) == 1
    assert legend_of(figure).count("images, n = 5") == 1


def test_several_budgets_are_named_in_the_legend(tmp_path):
    frame = pd.concat([spectra(JOBS[:1]), spectrum("perturbation", 1 / 7, "fgsm", "m0", eps=2.0)])
    figure = spectra_figure(frame)
    assert "fgsm on m0 at 2/255, n = 5" in legend_of(figure)
    assert "fgsm on m0 at 8/255, n = 4" in legend_of(figure)
    assert figure.get_suptitle() == "power spectra"
    save_figure(figure, tmp_path / "spectra.png")


def test_spectra_without_perturbations_or_of_one_image_draw(tmp_path):
    frame = spectra(JOBS[:1]).assign(n=1, share_sd=np.nan)
    save_figure(spectra_figure(frame), tmp_path / "one.png")
    perturbation = frame["kind"] == "perturbation"
    frame.loc[perturbation, ["share", "power"]] = np.nan
    frame.loc[perturbation, "n"] = 0
    figure = spectra_figure(frame)
    assert legend_of(figure)[:2] == ["images, n = 1", "white noise"]
    save_figure(figure, tmp_path / "none.png")


def filtered(jobs=JOBS, targets=("m0", "m1"), n=8):
    rows = [
        {
            "target": target,
            "band": band,
            "norm": norm,
            "frequency_low": {"high": 0.25, "band": 0.125}.get(band, 0.0),
            "frequency_high": {"low": 0.125, "band": 0.25}.get(band, 0.70711),
            "n": n,
            "success": place,
            "success_rate": place / (8 if norm == "linf" else 4) if n else np.nan,
            "success_rate_low": 0.05 if n else np.nan,
            "success_rate_high": 0.95 if n else np.nan,
            "noise_success_rate": 0.125 if n else np.nan,
            "excess": place / 8 - 0.125 if n else np.nan,
            "excess_low": -0.25 if n else np.nan,
            "excess_high": 0.5 if n else np.nan,
            "attack": attack,
            "source": source,
        }
        for attack, source in jobs
        for target in targets
        for norm in ("linf", "l2")
        for place, band in enumerate(("all", "low", "band", "high"))
    ]
    return pd.DataFrame(rows)


def test_filtered_success_and_noise_are_grouped_by_band(tmp_path):
    figure = filtered_figure(filtered(), "linf")
    grid = np.reshape(figure.axes, (3, 3))
    panel, _, words = grid[1]
    places = {
        (round(bar.get_x() + bar.get_width() / 2, 6), bar.get_height()) for bar in panel.patches
    }
    assert places == {(group + shift, 12.5 * group) for group in range(4) for shift in (-0.2, 0.2)}
    assert [label.get_text() for label in grid[2][0].get_xticklabels()] == [
        "whole\n0 to 0.707",
        "low\n< 0.125",
        "middle\n0.125 to 0.25",
        "high\n$\\geq$ 0.25",
    ]
    lines = [path.vertices for lines in panel.collections for path in lines.get_paths()]
    upright = [line[:, 1].tolist() for line in lines if np.ptp(line[:, 0]) == 0]
    across = [line[:, 1].tolist() for line in lines if np.ptp(line[:, 0]) > 0]
    assert upright == [[5, 95]] * 8 and set(map(tuple, across)) == {(12.5, 12.5)}
    texts = [text.get_text() for text in words.get_legend().get_texts()]
    assert texts == ["m0, n = 8", "m1, n = 8"]
    assert words.get_legend().get_title().get_text() == "fgsm made on\nm1, shown to"
    shown = [axes.xaxis.get_tick_params()["labelbottom"] for axes in grid[:, 0]]
    assert shown == [False, False, True]
    heights = {bar.get_height() for bar in filtered_figure(filtered(), "l2").axes[0].patches}
    assert heights == {0, 25, 50, 75}
    save_figure(figure, tmp_path / "filtered.png")
    assert figure.get_size_inches()[0] <= 9


def test_the_excess_stands_beside_the_rates_with_its_interval():
    _, panel, _ = filtered_figure(filtered(JOBS[:1])).axes
    points = [line for line in panel.get_lines() if line.get_linestyle() == "None"]
    assert [line.get_ydata().tolist() for line in points] == [[-12.5, 0, 12.5, 25]] * 2
    assert [to_hex(line.get_markerfacecolor()) for line in points] == [
        "#ffffff",
        PALETTE[1].lower(),
    ]
    spans = [path.vertices[:, 1].tolist() for c in panel.collections for path in c.get_paths()]
    assert spans == [[-25, 50]] * 8
    low, high = panel.get_ylim()
    assert low < -25 and high > 50


def test_jobs_with_other_bands_have_their_own_labels():
    frame = filtered()
    frame.loc[(frame["band"] == "low") & (frame["attack"] == "bim"), "frequency_high"] = 0.1
    grid = np.reshape(filtered_figure(frame).axes, (3, 3))
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in grid[:, 0])
    low = [axes.get_xticklabels()[1].get_text() for axes in grid[:, 0]]
    assert low == ["low\n< 0.125", "low\n< 0.125", "low\n< 0.1"]


def test_white_boxes_are_hatched():
    panel, _, words = filtered_figure(filtered(JOBS[:1])).axes
    assert [bool(patch.get_hatch()) for patch in words.get_legend().get_patches()] == [True, False]
    own = [bar for bar in panel.patches if bar.get_hatch()]
    other = [bar for bar in panel.patches if not bar.get_hatch()]
    assert len(own) == len(other) == 4
    assert {to_hex(bar.get_edgecolor()).upper() for bar in own} == {PALETTE[0]}
    assert {to_hex(bar.get_facecolor()).upper() for bar in other} == {PALETTE[1]}


def test_missing_norms_bands_and_pairs_leave_gaps(tmp_path):
    frame = filtered()
    frame = frame[(frame["norm"] == "l2") & (frame["band"] != "band")]
    frame = frame[~((frame["source"] == "m1") & (frame["target"] == "m0"))]
    frame.loc[frame["attack"] == "bim", ["success_rate", "n"]] = [np.nan, 0]
    figure = filtered_figure(frame)
    grid = np.reshape(figure.axes, (3, 3))
    assert [len(axes.patches) for axes in grid[:, 0]] == [6, 3, 0]
    texts = [text.get_text() for text in grid[2, 2].get_legend().get_texts()]
    assert texts == ["m0, n = 0", "m1, n = 0"]
    save_figure(figure, tmp_path / "gaps.png")
    with pytest.raises(ValueError, match="no row has the norm linf"):
        filtered_figure(frame, "linf")


def low_passed(targets=("m0", "$m$"), cutoffs=(0.0625, 0.25, 0.71), n=4):
    rows = [
        {
            "target": target,
            "cutoff": cutoff,
            "n": n + place,
            "correct": 1,
            "accuracy": cutoff,
            "accuracy_low": 0.5 * cutoff,
            "accuracy_high": 1.25 * cutoff,
        }
        for place, target in enumerate(targets)
        for cutoff in cutoffs
    ]
    return pd.DataFrame(rows)


def test_low_pass_accuracy_has_a_line_and_a_band_per_model(tmp_path):
    figure = low_pass_figure(low_passed().sample(frac=1, random_state=1))
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"m0, n = 4", r"\$m\$, n = 5"}
    line = lines["m0, n = 4"]
    np.testing.assert_allclose(line.get_xdata(), [0.0625, 0.25, 0.71])
    np.testing.assert_allclose(line.get_ydata(), [6.25, 25, 71])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose((heights.min(), heights.max()), (3.125, 88.75))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0625", "0.25", "0.71"]
    assert legend_of(figure)[-1] == "95 % Wilson interval"
    save_figure(figure, tmp_path / "low.png")


def test_unfiltered_images_stand_apart_at_the_right_end(tmp_path):
    frame = low_passed()
    whole = frame[frame["cutoff"] == 0.25].assign(cutoff=np.inf, accuracy=0.8)
    whole = whole.assign(accuracy_low=0.75, accuracy_high=0.9)
    figure = low_pass_figure(pd.concat([whole, frame]))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()][-2:] == ["0.71", "all"]
    end = axes.get_xticks()[-1]
    assert 0.71 < end < axes.get_xlim()[1]
    drawn = [line.get_xydata() for line in axes.get_lines()]
    assert sum(len(line) == 3 for line in drawn) == 2  # the lines end at the last cutoff
    single = [line[0] for line in drawn if len(line) == 1]
    assert [y for _, y in single] == [80, 80] and len({x for x, _ in single}) == 2
    np.testing.assert_allclose([x for x, _ in single], end, rtol=0.02)
    assert sum(np.allclose(line[:, 1], [75, 90]) for line in drawn if len(line) == 2) == 2
    assert legend_of(figure) == ["m0, n = 4", r"\$m\$, n = 5", "95 % Wilson interval"]
    save_figure(figure, tmp_path / "low.png")
    with pytest.raises(ValueError, match="no row of the table has a number for cutoff"):
        low_pass_figure(whole)


def test_one_model_at_one_cutoff_that_is_always_wrong_draws(tmp_path):
    frame = low_passed(("m0",), (0.25,), n=1).assign(accuracy=0.0, accuracy_low=0.0)
    save_figure(low_pass_figure(frame), tmp_path / "low.png")


def pairs(models=("m0", "m1", "m2"), attacks=("fgsm",), seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for attack, source, target in itertools.product(attacks, models, models):
        white = source == target
        rows.append(
            {
                "attack": attack,
                "source": source,
                "target": target,
                "eps_255": 8.0,
                "n": 20 if white else 10,
                "cosine": 1.0 if white else generator.uniform(0, 0.1),
                "sign_agreement": 0.5,
                "kappa": 1.0 if white else generator.uniform(0.1, 0.5),
                "same_wrong": 0.5,
                "success_rate": 0.75 if white else generator.uniform(0.2, 0.6),
                "white_box": white,
            }
        )
    frame = pd.DataFrame(rows)
    for name, margin in (("cosine", 0.01), ("success_rate", 0.1)):
        frame[f"{name}_low"] = frame[name] - margin
        frame[f"{name}_high"] = frame[name] + margin
    return frame


def points(axes):
    """Return the points of a panel: (x, y) -> line."""
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): line
        for line in axes.get_lines()
        if len(line.get_xdata()) == 1
    }


def test_each_pair_is_a_point_with_both_intervals_and_its_name(tmp_path):
    frame = pairs()
    figure = similarity_figure(frame)
    cosine, _, kappa, _ = figure.axes
    others = frame[~frame["white_box"]]
    for axes, column in ((cosine, "cosine"), (kappa, "kappa")):
        drawn = points(axes)
        assert len(drawn) == 6
        for row in others.itertuples():
            point = drawn[getattr(row, column), 100 * row.success_rate]
            assert point.get_color() == PALETTE[int(row.source[1])]
            assert point.get_marker() == MARKERS[int(row.target[1])]
        assert sorted(text.get_text() for text in axes.texts) == sorted(
            f"{row.source} \u2192 {row.target}" for row in others.itertuples()
        )
        for text in axes.texts:
            row = others[
                (others["source"] == text.get_text()[:2])
                & (others["target"] == text.get_text()[-2:])
            ].iloc[0]
            np.testing.assert_allclose(text.xy, (row[column], 100 * row["success_rate"]))
    spans = [np.ptp(line.get_xydata(), axis=0) for line in cosine.get_lines()]
    assert sum(np.allclose(span, [0.02, 0]) for span in spans) == 6
    assert sum(np.allclose(span, [0, 20]) for span in spans) == 6
    assert figure.get_suptitle() == (
        "transfer and likeness of models, $\\epsilon$ = 8/255, n = 10 to 20 images a pair"
    )
    assert cosine.get_ylabel() == "success rate of fgsm (%)"
    assert set(legend_of(figure)) == {
        f"{words} m{place}" for words in ("made on", "shown to") for place in range(3)
    }
    save_figure(pickle.loads(pickle.dumps(figure)), tmp_path / "similarity.png")
    assert figure.get_size_inches()[0] <= 9


def test_the_line_is_that_of_the_regression():
    frame = pairs(("m0", "m1", "m2", "m3"))
    others = frame[~frame["white_box"]]
    for axes, column in zip(similarity_figure(frame).axes[::2], ("cosine", "kappa"), strict=True):
        (line,) = [one for one in axes.get_lines() if one.get_linestyle() == "--"]
        x, y = line.get_xydata().T
        fit = linregress(others[column], 100 * others["success_rate"])
        np.testing.assert_allclose(x, [others[column].min(), others[column].max()])
        np.testing.assert_allclose(y, fit.intercept + fit.slope * x)
        assert axes.get_title() == f"12 pairs not white box, r = {fit.rvalue:.2f}".replace(
            "-", "\u2212"
        )


def test_white_boxes_are_hollow_beside_the_panel():
    frame = pairs()
    frame.loc[frame["source"].eq("m1") & frame["white_box"], "cosine"] = 0.625
    _, strip, _, other = similarity_figure(frame).axes
    assert [label.get_text() for label in strip.get_xticklabels()] == ["1", "0.62", "1"]
    assert [label.get_text() for label in other.get_xticklabels()] == ["1"] * 3
    drawn = points(strip)
    assert set(drawn) == {(place, 75.0) for place in range(3)}
    assert {line.get_markerfacecolor() for line in drawn.values()} == {"white"}
    assert [drawn[place, 75.0].get_color() for place in range(3)] == list(PALETTE[:3])
    assert strip.get_title() == "white box"


def test_each_attack_has_a_row_on_the_same_scale(tmp_path):
    figure = similarity_figure(pairs(attacks=("fgsm", "bim")))
    grid = np.reshape(figure.axes, (2, 4))
    assert [axes.get_ylabel() for axes in grid[:, 0]] == [
        "success rate of fgsm (%)",
        "success rate of bim (%)",
    ]
    assert grid[0, 0].get_xlim() == grid[1, 0].get_xlim()
    assert points(grid[0, 0]).keys() != points(grid[1, 0]).keys()
    save_figure(figure, tmp_path / "similarity.png")


LONG = "tf_efficientnetv2_s.in21k_ft_in1k+vit_small_patch16_224.augreg_in21k"


@pytest.mark.parametrize("models", [("m0", "m1", "m2", "m3"), (LONG, LONG[::-1])])
def test_many_pairs_and_long_names_are_told_apart_by_the_legend_alone(models, tmp_path):
    figure = similarity_figure(pairs(models))
    count = len(models) * (len(models) - 1)
    assert len(points(figure.axes[0])) == count and not figure.axes[0].texts
    save_figure(figure, tmp_path / "similarity.png")


def test_long_names_leave_room_for_the_data(tmp_path):
    figures = {
        "spectra": spectra_figure(spectra([("fgsm", LONG)])),
        "filtered": filtered_figure(filtered([("fgsm", LONG)], (LONG, "m1"))),
        "low": low_pass_figure(low_passed((LONG, "m1"))),
        "similarity": similarity_figure(pairs((LONG, "m1"))),
    }
    for name, figure in figures.items():
        save_figure(figure, tmp_path / f"{name}.png")
        assert figure.axes[0].get_window_extent().width > 0.25 * figure.bbox.width
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        for legend in legends:
            if legend is not None:
                box = legend.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_spectra_over_few_decades_have_readable_ticks():
    frame = spectra(JOBS[:1], image=np.array([0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]))
    figure = spectra_figure(frame)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels(which="both")]
    assert {"10", "20"} <= set(shown) and not any("10^" in text for text in shown)


@pytest.mark.parametrize("models", [("m0",), ("m0", "m1"), ("m0", "m1", "m2")], ids=len)
def test_few_pairs_have_no_line(models, tmp_path):
    figure = similarity_figure(pairs(models))
    main = figure.axes[0]
    assert not [line for line in main.get_lines() if line.get_linestyle() == "--"]
    assert main.get_title().endswith("not white box, no line below 4 pairs of models")
    if len(models) == 1:
        assert [text.get_text() for text in main.texts] == ["no pair to show"]
    save_figure(figure, tmp_path / "similarity.png")


def test_pairs_without_white_boxes_or_with_gaps_draw(tmp_path):
    frame = pairs()
    frame = frame[~frame["white_box"]].drop(columns="eps_255")
    frame.loc[frame["source"] == "m0", ["kappa", "cosine_low", "cosine_high"]] = np.nan
    frame.loc[frame["source"] == "m1", "success_rate"] = np.nan
    figure = similarity_figure(frame)
    assert len(points(figure.axes[0])) == 4 and len(points(figure.axes[2])) == 2
    assert not figure.axes[1].axison
    save_figure(figure, tmp_path / "similarity.png")


def test_names_of_near_points_neither_overlap_nor_leave_the_panel():
    figure = similarity_figure(pairs())
    axes = figure.axes[0]
    for text in list(axes.texts):
        text.remove()
    middle = np.mean(axes.get_xlim())
    crowd = np.array([[middle, 50], [middle, 51], [middle, 52], [axes.get_xlim()[1], 100]])
    label_points(axes, crowd, ["one \u2192 two", "three \u2192 four", "five \u2192 six", "last"])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without leading lines
    area = axes.get_window_extent()
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    for box in boxes:
        assert area.x0 <= box.x0 and box.x1 <= area.x1
        assert area.y0 <= box.y0 and box.y1 <= area.y1


EMPTY = {
    "spectra": (spectra_figure, spectra(), "share"),
    "filtered": (filtered_figure, filtered(), "success_rate"),
    "low pass": (low_pass_figure, low_passed(), "accuracy"),
    "similarity": (similarity_figure, pairs(), "success_rate"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_tables_without_numbers_say_why_nothing_is_drawn(name):
    draw, frame, column = EMPTY[name]
    with pytest.raises(ValueError, match="nothing to draw: the table has no row"):
        draw(frame.iloc[:0])
    with pytest.raises(ValueError, match=f"no row of the table has a number for .*{column}"):
        draw(frame.assign(**{column: np.nan}))
    with pytest.raises(ValueError, match="lacks the columns n"):
        draw(frame.drop(columns="n"))


def test_other_reasons_for_drawing_nothing_are_named():
    with pytest.raises(ValueError, match="no spectrum has power at any frequency"):
        spectra_figure(spectra().assign(share=0.0))
    with pytest.raises(ValueError, match="no row has the norm l2"):
        filtered_figure(filtered().assign(norm="l1"))
    with pytest.raises(ValueError, match="no pair has a gradient cosine or a kappa"):
        similarity_figure(pairs().assign(cosine=np.nan, kappa=np.nan))


def test_one_image_or_all_successes_draw(tmp_path):
    save_figure(filtered_figure(filtered(JOBS[:1], ("m0",), n=1)), tmp_path / "a.png")
    frame = pairs(("m0", "m1", "m2", "m3")).assign(success_rate=1.0, n=1)
    figure = similarity_figure(frame)
    assert figure.axes[0].get_title() == "12 pairs not white box"
    save_figure(figure, tmp_path / "b.png")


def test_names_with_dollar_signs_are_shown_as_they_are(tmp_path):
    frame = pairs(("$a$", "b"), attacks=("$f$",))
    figure = similarity_figure(frame)
    assert figure.axes[0].texts[0].get_text() == "\\$a\\$ \u2192 b"
    assert figure.axes[0].get_ylabel() == "success rate of \\$f\\$ (%)"
    save_figure(figure, tmp_path / "a.png")
    save_figure(spectra_figure(spectra([("$f$", "$a$")])), tmp_path / "b.png")
    figure = filtered_figure(filtered([("$f$", "$a$")], ("$a$",)))
    assert figure.axes[2].get_legend().get_texts()[0].get_text() == "\\$a\\$, n = 8"
    save_figure(figure, tmp_path / "c.png")
