"""Momentum, alone or with a look-ahead."""

from src.attacks.define import attack


@attack(decay=1.0)
def mi() -> None:
    """Momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

    Reference: Dong et al. (2018), arXiv 1710.06081.
    """


@attack(decay=1.0, lookahead="momentum")
def ni() -> None:
    """Gradient where the momentum leads: Nesterov's, at x_t + a * mu * m_{t-1}.

    Reference: Lin et al. (2020), arXiv 1908.06281.
    """


@attack(decay=1.0, lookahead="gradient")
def pi_pregradient() -> None:
    """Gradient where the last one leads: pre-gradient guided momentum.

    That is x_t + a * g_{t-1} / mean|g_{t-1}|. Not the patch-wise attack, which is called PI-FGSM
    too.

    Reference: Wang et al. (2021), arXiv 2103.10609.
    """


@attack(
    decay=1.0, warm_up_steps=5, warm_up_scale=10.0, gradients="2 + K * (warm_up_steps + steps - 2)"
)
def gi() -> None:
    """Momentum of a wide search beforehand: global momentum initialisation of `mi`.

    The search is `mi` itself, with `warm_up_steps` of `warm_up_scale` * a, projected as all are.

    Reference: Wang et al. (2022), arXiv 2211.11236.
    """
