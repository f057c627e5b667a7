"""List public models, download their weights, or check a model's preprocessing."""

import argparse
from collections.abc import Sequence
from fnmatch import filter as matching

from src.analysis import format_cell
from src.api.classifier import load_classifier, model_settings
from src.config.command_line import command_line
from src.models.providers import find, load_network, open_provider
from src.run.data import DataSets
from src.run.preprocessing import search, stated
from src.utils.model_names import PROVIDERS

_IMAGES = 200  # of a check


def main() -> None:
    """Run the command line."""
    command_line(_list_or_fetch)


def _list_or_fetch() -> None:
    parser = argparse.ArgumentParser("python -m src.models", description=__doc__)
    text = f"a provider ({', '.join(PROVIDERS)}) and optionally a pattern; or names to fetch; or "
    text += "check NAME dataset=DATASET, and further words of src.main"
    parser.add_argument("words", nargs="+", help=text)
    parser.add_argument("--fetch", action="store_true", help="download weights")
    parser.add_argument("--config-dir", help="folder of your own config files, for check")
    arguments = parser.parse_intermixed_args()
    if arguments.words[0] == "check":
        _check(arguments.words[1:], arguments.config_dir)
        return
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


def _check(words: Sequence[str], config_dir: str | None) -> None:
    """Print a model's accuracy under common normalisations and input sizes."""
    if not words:
        raise ValueError("Name a model and its images: python -m src.models check NAME dataset=...")
    name, *others = words
    classifier = load_classifier(name, *others, config_dir=config_dir)
    settings = model_settings(["attack=none", f"targets=[{name}]", *others], config_dir)
    images = DataSets().open(settings, "test").subset(_IMAGES)
    scores, own, n = search(classifier, images), stated(classifier), len(images)
    best = next(iter(scores))
    print(f"{'normalisation':<24}channels  input_size  correct")
    for its, (_, correct) in scores.items():
        place = f"{its.name:<24}{its.channels:<10}{its.input_size or 'as stored':<12}"
        print(f"{place}{format_cell(correct, n)}")
    print(f"The best row is chosen on these {n} images: on others it is less accurate.")
    print("The model's file has the best row:" if best == own else "Lines for the model's file:")
    print(*best.lines, *[f"input_size: {best.input_size}"] * (best[4] != own[4]), sep="\n")


if __name__ == "__main__":
    main()
