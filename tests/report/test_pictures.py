import numpy as np
import pytest

from src.report.pictures import series, triple
from src.report.style import RIGHT, WRONG, save_figure

NAMES = ["cat", "ballplayer, baseball player", "dog"]


def images(count=2, channels=3, size=8):
    return np.random.default_rng(0).uniform(0.2, 0.8, (count, channels, size, size))


def drawn_triple(clean, adversarial, eps_255, **changes):
    words = {
        "labels": [0, 1],
        "predicted": [[0, 1], [0, 2]],
        "confidence": [[0.9, 0.8], [0.7, 0.65]],
        "class_names": NAMES,
    }
    return triple(clean, adversarial, eps_255, **(words | changes))


def pixels(axes):
    return axes.images[0].get_array()


def test_triple_shows_images_predictions_and_the_scaled_perturbation():
    clean = images()
    adversarial = clean.copy()
    adversarial[0, 0, 0, 0] += 8 / 255
    adversarial[0, 1, 0, 0] -= 4 / 255
    figure = drawn_triple(clean, adversarial, 8, title="fgsm made on vgg16")
    first, second = np.reshape(figure.axes, (2, 3))
    assert figure.get_suptitle() == "fgsm made on vgg16"
    assert [axes.get_title() for axes in first] == [
        "clean",
        "perturbation\n$\\times$ 15.9 (grey: no change)",
        "adversarial\n$\\epsilon$ = 8/255",
    ]
    np.testing.assert_allclose(pixels(first[0]), clean[0].transpose(1, 2, 0))
    np.testing.assert_allclose(pixels(first[2]), adversarial[0].transpose(1, 2, 0))
    np.testing.assert_allclose(pixels(first[1])[0, 0], [1.0, 0.25, 0.5])
    np.testing.assert_allclose(pixels(first[1])[1:], 0.5)
    assert first[0].get_ylabel() == "true: cat"
    assert second[0].get_ylabel() == "true: ballplayer"
    assert first[1].get_xlabel() == "largest change\n8/255"
    assert second[0].get_xlabel() == f"{RIGHT[0]} ballplayer\n80.0%"
    assert second[2].get_xlabel() == f"{WRONG[0]} dog\n65.0%"
    assert second[0].xaxis.label.get_color() == RIGHT[1]
    assert second[2].xaxis.label.get_color() == WRONG[1]


def test_small_images_are_drawn_pixel_by_pixel():
    axes = drawn_triple(images(size=32), images(size=32), 8).axes
    assert {panel.images[0].get_interpolation() for panel in axes} == {"nearest"}


def test_triple_draws_a_zero_and_a_fractional_budget(tmp_path):
    figure = drawn_triple(images(), images(), 0.0)
    np.testing.assert_array_equal(pixels(figure.axes[1]), 0.5)
    save_figure(figure, tmp_path / "zero.png")
    assert "$\\times$ 510" in drawn_triple(images(), images(), 0.25).axes[1].get_title()


def test_series_has_a_row_per_image_and_a_column_per_budget():
    clean = images()
    budgets = [0.25, 4.0, 16.0]
    adversarials = np.stack([np.clip(clean + eps / 255, 0, 1) for eps in budgets])
    predicted = [[0, 1], [0, 2], [2, 1], [2, 2]]
    confidence = np.linspace(0.1, 0.8, 8).reshape(4, 2)
    figure = series(
        clean,
        adversarials,
        budgets,
        labels=[0, 1],
        predicted=predicted,
        confidence=confidence,
        class_names=NAMES,
    )
    grid = np.reshape(figure.axes, (2, 4))
    assert [axes.get_title() for axes in grid[0]] == [
        "clean",
        *(f"$\\epsilon$ = {eps}/255" for eps in ("0.25", "4", "16")),
    ]
    for row in range(2):
        for column in range(4):
            expected = clean[row] if column == 0 else adversarials[column - 1, row]
            np.testing.assert_allclose(pixels(grid[row, column]), expected.transpose(1, 2, 0))
    assert [axes.get_xlabel() for axes in grid[1]] == [
        f"{RIGHT[0]} ballplayer\n20.0%",
        f"{WRONG[0]} dog\n40.0%",
        f"{RIGHT[0]} ballplayer\n60.0%",
        f"{WRONG[0]} dog\n80.0%",
    ]
    frames = [axes.spines["left"].get_edgecolor()[:3] for axes in grid[1]]
    assert frames[0] == frames[2] != frames[1] == frames[3]


def test_one_grey_image_at_one_budget_draws(tmp_path):
    grey = images(count=1, channels=1)
    figure = series(
        grey,
        grey[None],
        [8.0],
        labels=[0],
        predicted=[[0], [1]],
        confidence=[[1.0], [0.5]],
        class_names=NAMES,
        title="a title that is longer than the small figure is wide, so that it wraps",
    )
    assert pixels(figure.axes[0]).shape == (8, 8, 3)
    save_figure(figure, tmp_path / "one.png")
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_long_names_are_cut():
    names = ["black-and-tan coonhound of a long pedigree", "b", "c"]
    axes = drawn_triple(images(), images(), 8, class_names=names).axes
    assert axes[0].get_xlabel().split("\n")[0].endswith("\u2026")


def test_shapes_that_do_not_fit_are_refused():
    clean = images()
    with pytest.raises(ValueError, match=r"clean must have the shape .*, not \(3, 8, 8\)\."):
        drawn_triple(clean[0], clean, 8)
    with pytest.raises(ValueError, match=r"clean must have the shape .* at least one image"):
        drawn_triple(clean[:0], clean[:0], 8)
    with pytest.raises(ValueError, match=r"adversarial must have .*, not \(1, 3, 8, 8\)\."):
        drawn_triple(clean, clean[:1], 8)
    with pytest.raises(ValueError, match=r"predicted must have the shape \(2, 2\)"):
        drawn_triple(clean, clean, 8, predicted=[[0, 1]])
    with pytest.raises(ValueError, match=r"confidence must have the shape \(2, 2\)"):
        drawn_triple(clean, clean, 8, confidence=[0.9, 0.8])
    with pytest.raises(ValueError, match="got 1 for 2"):
        drawn_triple(clean, clean, 8, labels=[0])
    with pytest.raises(ValueError, match=r"adversarials must have the shape \(2, 2, 3, 8, 8\)"):
        series(
            clean,
            clean[None],
            [4, 8],
            labels=[0, 1],
            predicted=[[0, 0]] * 3,
            confidence=[[1, 1]] * 3,
            class_names=NAMES,
        )
