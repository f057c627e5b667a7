"""Momentum, alone or with a look-ahead."""

from src.attacks.define import published


@published(decay=1.0)
def mi() -> None:
    """Momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

    Reference: Dong et al. (2018), arXiv 1710.06081.
    """


@published(decay=1.0, lookahead="momentum")
def ni() -> None:
    """Nesterov: the gradient is taken where the momentum would lead, x_t + a * mu * m_{t-1}.

    Reference: Lin et al. (2020), arXiv 1908.06281.
    """


@published(decay=1.0, lookahead="gradient")
def pi_pregradient() -> None:
    """Pre-gradient guided momentum: the gradient is taken where the last one alone would lead.

    That is x_t + a * g_{t-1} / mean|g_{t-1}|. Not the patch-wise attack, which is called PI-FGSM
    too.

    Reference: Wang et al. (2021), arXiv 2103.10609.
    """


@published(decay=1.0, warm_up_steps=5, warm_up_scale=10.0)
def gi() -> None:
    """Global momentum initialisation: `mi` that starts with the momentum of a wide search.

    The search is `mi` itself, with `warm_up_steps` of `warm_up_scale` * a, projected as all are.

    Reference: Wang et al. (2022), arXiv 2211.11236.
    """
