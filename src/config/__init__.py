"""Typed settings, read from the composed config."""

from ..utils.package import lazily

__all__, __getattr__ = lazily(__name__, __file__)  # most of them load Hydra
