"""Why adversarial examples transfer: spatial frequencies and gradients."""

import altair as alt
import pandas as pd

from src.report.charts.theme import (
    GREY,
    PERCENT,
    STROKES,
    Drawn,
    colour_by,
    curve,
    inline,
    tooltip,
)

_CLEAN = "(clean images)"


def spectra_chart(spectra: pd.DataFrame) -> Drawn:
    """Show the share of power at each spatial frequency, of images and of perturbations.

    Args:
        spectra: With `attack`, `source`, `kind` (`image` or `perturbation`), `frequency` (middle
            of the ring, cycles per pixel) and `share`.
    """
    sources = list(dict.fromkeys(spectra["source"]))
    lines = tooltip("attack", "source", "kind", shares=["share"], numbers=["frequency"])
    x = alt.X("frequency:Q", title="spatial frequency (cycles per pixel)")
    y = alt.Y(
        "share:Q", title="share of power", scale=alt.Scale(type="log"), axis=alt.Axis(format="~%")
    )
    base = alt.Chart(inline(spectra)).transform_filter("datum.share > 0").encode(x=x, y=y)
    images = base.transform_filter("datum.kind == 'image'").mark_line(strokeWidth=4, opacity=0.7)
    curves = base.transform_filter("datum.kind == 'perturbation'").mark_line(point=True)
    return alt.layer(
        images.encode(color=alt.datum(_CLEAN), tooltip=lines[2:], detail="source:N"),
        curves.encode(
            color=colour_by("source", [*sources, _CLEAN], "perturbations from", **STROKES),
            strokeDash=alt.StrokeDash(
                "attack:N", sort=None, legend=alt.Legend(title="attack", **STROKES)
            ),
            tooltip=lines,
        ),
    ).properties(width=420, height=260)


def low_pass_chart(accuracy: pd.DataFrame, nyquist: float) -> Drawn:
    """Show the accuracy on clean images without their high frequencies.

    Args:
        accuracy: With `target`, `cutoff` (cycles per pixel; inf: the image as it is), `n`,
            `correct`, and `accuracy` with its interval.
        nyquist: Where images as they are stand on the x axis.
    """
    frame = accuracy.assign(
        at=accuracy["cutoff"].clip(upper=nyquist),
        kept=[f"below {c:g}" if c < nyquist else "everything" for c in accuracy["cutoff"]],
    ).drop(columns="cutoff")
    base = alt.Chart(inline(frame)).encode(
        x=alt.X("at:Q", title="frequencies kept (cycles per pixel; last: everything)"),
        color=colour_by("target", frame["target"], "model", **STROKES),
    )
    lines = tooltip("target", "kept", "correct", "n", shares=["accuracy"])
    return curve(base, "accuracy", "accuracy", lines).properties(width=420, height=230)


def similarity_chart(pairs: pd.DataFrame) -> Drawn:
    """Show transfer over the similarity of gradients, and over that of errors.

    Args:
        pairs: Without white boxes: `attack`, `source`, `target`, `n`, `cosine` (mean, of the
            loss gradients on clean images), `kappa` (error consistency), and `success_rate`
            with its interval.
    """
    panels = []
    for column, words in (
        ("cosine", "mean cosine of gradients"),
        ("kappa", "error consistency (Cohen's kappa)"),
    ):
        base = alt.Chart(inline(pairs)).encode(
            x=alt.X(f"{column}:Q", title=words, scale=alt.Scale(zero=True, padding=12)),
            color=colour_by("attack", pairs["attack"]),
        )
        rate = alt.Y("success_rate:Q", title="success rate", axis=PERCENT)
        points = base.mark_point(filled=True, size=80).encode(
            y=rate,
            shape=alt.Shape(
                "source:N",
                legend=alt.Legend(title="source", symbolFillColor=GREY, symbolStrokeColor=GREY),
            ),
            tooltip=tooltip(
                *("attack", "source", "target", "n"),
                shares=["success_rate"],
                numbers=["cosine", "kappa"],
            ),
        )
        bars = base.mark_rule(strokeWidth=1.2).encode(
            y="success_rate_low:Q", y2="success_rate_high:Q"
        )
        panels.append(alt.layer(bars, points).properties(width=270, height=240))
    return alt.hconcat(*panels, spacing=24)
