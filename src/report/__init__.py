"""The report of finished jobs: tables, charts and one HTML page, built from stored tables."""

from ..utils.package import lazily

__all__, __getattr__ = lazily(__name__, __file__)  # the page and the charts load Altair
