"""The job of `python -m src.explore`: it attacks nothing."""

from omegaconf import DictConfig

from src.attack_config import AttackConfig
from src.checks import names_of
from src.evaluation import Forms
from src.job import Job, check_models, check_settings


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
        standard=0.0,
        protocol="all",
        seed=config.seed,
        forms=Forms(),
        save=False,
        config=config,
    )
