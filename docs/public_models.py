"""The list of public models that the release ships, made from the installed libraries.

Models of RobustBench are listed anew where it is installed, and else stay as they are.
"""

from contextlib import suppress
from importlib.metadata import version

from src.models.providers import open_provider
from src.utils.model_names import LIST


def main() -> None:
    """Write the list."""
    old = LIST.read_text(encoding="utf-8").splitlines() if LIST.exists() else []
    names = {"robustbench": [line for line in old if line.startswith("robustbench/")]}
    for library in ("timm", "torchvision", "robustbench"):
        with suppress(ValueError):  # it is not installed
            names[library] = [f"{library}/{name}" for name in open_provider(library).names()]
    heads = [f"# {name} {version(name).partition('+')[0]}" for name in ("timm", "torchvision")]
    lines = [*heads, *sorted(name for its in names.values() for name in its)]
    LIST.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
