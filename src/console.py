"""The command `transferability`: a job or a sweep, or the command that its first word names."""

import os
import sys
from runpy import run_module

from src.utils.package import PACKAGE
from src.utils.refusals import suggestion

COMMANDS = ("main", "attacks", "figure", "models", "report", "sources", "status", "table")


def main() -> None:
    """Run a module of this package as `python -m` does, with the current folder importable."""
    name = "main"
    if sys.argv[1:] and "=" not in sys.argv[1] and sys.argv[1][0] not in "-~":
        name = sys.argv.pop(1)
    if name not in COMMANDS:
        near = suggestion(name, COMMANDS) or f" Available: {', '.join(COMMANDS)}."
        sys.exit(f"{name}: there is no such command.{near}")
    sys.path.insert(0, os.getcwd())
    run_module(f"{PACKAGE}.{name}", run_name="__main__", alter_sys=True)
