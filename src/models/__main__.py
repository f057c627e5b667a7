"""List public models, download their weights, or check a model's preprocessing."""

import sys
from collections.abc import Sequence
from fnmatch import filter as matching

from ..api.classifier import load_classifier, model_settings
from ..config.command_line import CommandParser, run_command
from ..run.clean_accuracy import search, stated
from ..run.data import DataSets
from ..utils.formats import format_cell
from ..utils.model_names import PROVIDERS
from ..utils.package import command
from .providers import find, load_network, open_provider

_IMAGES = 200  # of a check


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandParser(command("models"), description=__doc__)
    text = f"a provider ({', '.join(PROVIDERS)}) and optionally a pattern; or names to fetch; or "
    text += "check NAME dataset=DATASET, and further words of src.main"
    parser.add_argument("words", nargs="+", help=text)
    parser.add_argument("--fetch", action="store_true", help="download weights")
    parser.add_argument("--config-dir", help="folder of your own config files, for check")
    return run_command(_list_or_fetch, parser.parse_intermixed_args, words)


def _list_or_fetch(words: list[str], fetch: bool, config_dir: str | None) -> None:
    if words[0] == "check":
        _check(words[1:], config_dir)
        return
    if fetch:
        for name in words:
            load_network(name)
            print(f"{name}: {find(name).path}")
        return
    name, pattern = [*words, "*"][:2]
    provider = open_provider(name)
    identifiers = matching(provider.names(), pattern)
    if not identifiers:
        raise ValueError(f"{pattern} matches no model of {name}.")
    for identifier in identifiers:
        print(f"{name}/{identifier}", "\tcached" * provider.find(identifier).path.exists(), sep="")


def _check(words: Sequence[str], config_dir: str | None) -> None:
    """Print a model's accuracy under common normalisations and input sizes."""
    if not words:
        raise ValueError(f"Name a model and its images: {command('models')} check NAME dataset=...")
    name, *others = words
    classifier = load_classifier(name, *others, config_dir=config_dir)
    settings = model_settings(["attack=none", f"targets=[{name}]", *others], config_dir)
    images = DataSets().open(settings, "test").subset(_IMAGES)
    scores, now, n = search(classifier, images), stated(classifier), len(images)
    best = next(iter(scores))
    print(f"{'normalisation':<24}channels  input_size  correct")
    for way, (_, correct) in scores.items():
        place = f"{way.name:<24}{way.channels:<10}{way.input_size or 'as stored':<12}"
        print(f"{place}{format_cell(correct, n)}")
    print(f"The best row is chosen on these {n} images: on others it is less accurate.")
    print("The model's file has the best row:" if best == now else "Lines for the model's file:")
    print(*best.lines, *[f"input_size: {best.input_size}"] * (best[4] != now[4]), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
