import dataclasses
import pickle

import numpy as np
import pytest

from src.report.gallery_figures import Entry, gallery_figure
from src.report.style import RIGHT, WRONG, save_figure

NAMES = ["crane, bird", "crane, machine", "US$ and A$", "crow", "owl", "jay"]


def entry(**changes):
    image = np.random.default_rng(0).integers(0, 255, (3, 8, 8), dtype=np.uint8)
    words = {
        "image": image,
        "index": 17,
        "label": 2,
        "eps_255": [0.0, 1.0, 4.0, 16.0],
        "predicted": [2, 1, 1, 2],
        "confidence": [0.9, 0.5, 0.75, 0.25],
        "true_confidence": [0.9, 0.25, 0.125, 0.25],
        "clean_top5": ([2, 0, 1, 3, 4], [0.9, 0.05, 0.02, 0.02, 0.01]),
        "key_top5": ([1, 2, 0, 3, 5], [0.5, 0.25, 0.125, 0.0625, 0.03]),
        "key_eps_255": 0.984375,
        "key_words": "smallest flipping budget",
    }
    return Entry(**(words | changes))


def draw(*entries, title=None):
    return gallery_figure(entries, class_names=NAMES, title=title)


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def by_style(axes):
    """Return the lines of the confidence panel: key, true class, predicted, right, wrong."""
    return axes.get_lines()


def test_a_row_shows_image_confidence_and_both_top_fives(tmp_path):
    shown = entry()
    figure = draw(shown, title="from $1 to $2")
    picture, confidence, clean, key = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), np.moveaxis(shown.image, 0, -1))
    assert (picture.get_title(), picture.get_xlabel()) == ("image 17", r"true: US\$ and A\$")
    assert figure.get_suptitle() == r"from \$1 to \$2"
    at_key, true, predicted, right, wrong = by_style(confidence)
    assert list(at_key.get_xdata()) == [0.984375] * 2
    assert (true.get_linestyle(), predicted.get_linestyle()) == ("--", "-")
    np.testing.assert_allclose(true.get_ydata(), [90, 25, 12.5, 25])
    np.testing.assert_allclose(predicted.get_ydata(), [90, 50, 75, 25])
    assert (list(right.get_xdata()), list(right.get_ydata())) == ([0, 16], [90, 25])
    assert (list(wrong.get_xdata()), list(wrong.get_ydata())) == ([1, 4], [50, 75])
    assert right.get_markerfacecolor() == RIGHT[1] and wrong.get_markerfacecolor() == WRONG[1]
    assert right.get_marker() != wrong.get_marker()
    assert (confidence.get_xlabel(), confidence.get_ylabel()) == (
        "budget $\\epsilon$ (1/255)",
        "confidence (%)",
    )
    assert clean.get_title() == "top 5 clean"
    assert key.get_title() == "top 5 at $\\epsilon$ = 0.984/255\n(smallest flipping budget)"
    np.testing.assert_allclose([bar.get_width() for bar in key.patches], [50, 25, 12.5, 6.25, 3])
    assert texts_of(clean)[:4] == [
        f"{RIGHT[0]} US\\$ and A\\$",
        "90.0%",
        "crane (0)",
        "5.0%",
    ]
    assert texts_of(key)[:4] == [
        f"{WRONG[0]} crane (1)",
        "50.0%",
        f"{RIGHT[0]} US\\$ and A\\$",
        "25.0%",
    ]
    assert texts_of(key)[8] == "jay"
    save_figure(pickle.loads(pickle.dumps(figure)), tmp_path / "gallery.png")
    assert figure.get_size_inches()[0] <= 9


def test_bars_of_the_true_the_wrong_and_the_other_classes_differ():
    key = draw(entry()).axes[3]
    wrong, true, *others = [bar.get_facecolor() for bar in key.patches]
    assert len({wrong, true, *others}) == 3 and len(set(others)) == 1
    clean = draw(entry()).axes[2]
    assert clean.patches[0].get_facecolor() == true


def test_an_image_that_was_not_stored_is_a_grey_box(tmp_path):
    figure = draw(entry(image=None), entry(index=18))
    assert texts_of(figure.axes[0]) == ["image\nnot stored"] and not figure.axes[0].images
    assert figure.axes[4].images and figure.axes[0].get_title() == "image 17"
    save_figure(figure, tmp_path / "gallery.png")


def test_all_rows_share_one_scale_and_only_the_last_names_it():
    figure = draw(entry(), entry(key_eps_255=0.0625))
    first, last = figure.axes[1], figure.axes[5]
    assert first.get_xlabel() == ""
    assert last.get_xlabel() == "budget $\\epsilon$ (1/255), square-root scale"
    assert first.get_xscale() == last.get_xscale() == "function"
    assert first.get_xlim() == last.get_xlim()
    assert [label.get_text() for label in last.get_xticklabels()] == ["0", "1", "4", "16"]


def test_small_images_are_drawn_pixel_by_pixel_and_grey_ones_too(tmp_path):
    figure = draw(entry(image=np.full((1, 8, 8), 128, dtype=np.uint8)))
    assert figure.axes[0].images[0].get_interpolation() == "nearest"
    assert figure.axes[0].images[0].get_array().shape == (8, 8, 3)
    save_figure(figure, tmp_path / "grey.png")
    large = entry(image=np.zeros((3, 97, 120), dtype=np.uint8))
    assert draw(large).axes[0].images[0].get_interpolation() == "antialiased"


@pytest.mark.parametrize(
    "top", [([], []), (None, None), ([np.nan] * 5, [np.nan] * 5)], ids=["empty", "none", "nan"]
)
def test_a_top_five_that_was_not_stored_says_so(top, tmp_path):
    figure = draw(entry(clean_top5=top, key_top5=top))
    assert texts_of(figure.axes[2]) == texts_of(figure.axes[3]) == ["not stored"]
    save_figure(figure, tmp_path / "gallery.png")


@pytest.mark.parametrize(
    "changes",
    [
        {"eps_255": [0.0], "predicted": [2], "confidence": [1.0], "true_confidence": [1.0]},
        {"predicted": [1, 1, 1, 1], "true_confidence": [0.0] * 4},
        {"predicted": [2, 2, 2, 2]},
        {"confidence": [np.nan] * 4, "true_confidence": [np.nan] * 4},
        {"key_eps_255": float("nan"), "key_words": "never wrong"},
        {"clean_top5": ([2], [1.0]), "key_top5": ([1, 2], [0.5, 0.5])},
    ],
    ids=["clean only", "all wrong", "all right", "nan", "no key", "few classes"],
)
def test_unusual_entries_draw(changes, tmp_path):
    save_figure(draw(entry(**changes)), tmp_path / "gallery.png")


def test_one_class_draws(tmp_path):
    only = entry(
        label=0, predicted=[0] * 4, clean_top5=([0], [1.0]), key_top5=([0], [1.0]), image=None
    )
    save_figure(gallery_figure([only], class_names=["a"], title="t"), tmp_path / "gallery.png")


def test_without_a_key_budget_no_line_is_drawn():
    figure = draw(entry(key_eps_255=float("nan"), key_words="never wrong"))
    assert len(by_style(figure.axes[1])) == 4
    assert figure.axes[3].get_title() == "top 5: no such budget\n(never wrong)"


def test_entries_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="nothing to draw: the gallery has no image"):
        draw()
    with pytest.raises(ValueError, match=r"confidence of image 17 must have the shape \(4,\)"):
        draw(entry(confidence=[0.5]))
    with pytest.raises(ValueError, match=r"eps_255 must be a list of budgets, not of shape \(0,\)"):
        draw(entry(eps_255=[]))
    with pytest.raises(ValueError, match=r"image 17 must be uint8 .* not float64 \(3, 8, 8\)"):
        draw(entry(image=np.zeros((3, 8, 8))))
    with pytest.raises(ValueError, match=r"image 17 must be .* not uint8 \(8, 8, 3\)"):
        draw(entry(image=np.zeros((8, 8, 3), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"one confidence per class, not shapes \(2,\) and \(1,\)"):
        draw(entry(key_top5=([1, 2], [0.5])))
    with pytest.raises(ValueError, match="class 6 has no name"):
        draw(entry(label=6))


def test_entries_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry().label = 1
