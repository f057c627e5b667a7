"""List public models, or download their weights."""

import argparse
from fnmatch import filter as matching

from src.config.command_line import command_line
from src.models.providers import find, load_network, open_provider
from src.utils.public_models import PROVIDERS


def main() -> None:
    """Run the command line."""
    command_line(_list_or_fetch)


def _list_or_fetch() -> None:
    parser = argparse.ArgumentParser("python -m src.models", description=__doc__)
    text = f"a provider ({', '.join(PROVIDERS)}) and optionally a pattern; or names to fetch"
    parser.add_argument("words", nargs="+", help=text)
    parser.add_argument("--fetch", action="store_true", help="download weights")
    arguments = parser.parse_args()
    if arguments.fetch:
        for name in arguments.words:
            load_network(name)
            print(f"{name}: {find(name).path}")
        return
    name, pattern = [*arguments.words, "*"][:2]
    provider = open_provider(name)
    identifiers = matching(provider.names(), pattern)
    if not identifiers:
        raise ValueError(f"{pattern} matches no model of {name}.")
    for identifier in identifiers:
        print(f"{name}/{identifier}", "\tcached" * provider.find(identifier).path.exists(), sep="")


if __name__ == "__main__":
    main()
