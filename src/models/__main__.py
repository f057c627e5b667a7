"""Command line that lists public models, and fetches their weights."""

import argparse
from fnmatch import filter as matching

from src.config.command_line import command_line
from src.models.providers import PROVIDERS, find, load_network, open_provider


def main() -> None:
    """Run the command line."""
    command_line(_list_or_fetch)


def _list_or_fetch() -> None:
    parser = argparse.ArgumentParser("python -m src.models", description=__doc__)
    parser.add_argument("provider", nargs="?", help=f"one of {', '.join(PROVIDERS)}")
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'resnet*'")
    parser.add_argument("--fetch", nargs="+", metavar="NAME", help="download weights ahead")
    words = parser.parse_args()
    if (words.provider is None) == (words.fetch is None):
        parser.error("give a provider, or --fetch NAME")
    for name in words.fetch or ():
        load_network(name)
        print(f"{name}: {find(name).path}")
    if words.provider is not None:
        provider = open_provider(words.provider)
        identifiers = matching(provider.names(), words.pattern)
        if not identifiers:
            raise ValueError(f"{words.pattern} matches no model of {words.provider}.")
        for identifier in identifiers:
            cached = "\tcached" * provider.find(identifier).path.exists()
            print(f"{words.provider}/{identifier}{cached}")


if __name__ == "__main__":
    main()
