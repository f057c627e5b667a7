"""The job of `python -m src.explore`: it attacks nothing."""

from omegaconf import DictConfig

from src.config.attack import AttackConfig
from src.config.read import Job, check_models, check_settings
from src.evaluation import Variants
from src.utils.checks import names_of


def read_exploration(config: DictConfig) -> Job:
    """Check the config of `python -m src.explore`, and return a job that attacks nothing.

    Raises:
        ValueError: As `read_job`.
    """
    models = names_of(config.source)
    check_models(config, models, models)
    config = config.copy()
    config.protocol = "all"  # no attack, no denominator but all images
    check_settings(config)
    return Job(
        attack=AttackConfig("", {}, ""),
        sources=(),
        ensemble="logits",
        targets=tuple(map(str, models)),
        budgets=(),
        reference=0.0,
        protocol="all",
        seed=config.seed,
        forms=Variants(),
        save=False,
        config=config,
    )
