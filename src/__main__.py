"""The command `transferability`: a job or a sweep, or the command that its first word names.

In a clone it says what to type instead.
"""

import os
import shlex
import sys
from runpy import run_module

from .utils.package import CLONE, PACKAGE, command

COMMANDS = ["main", "attacks", "card", "compare"]
COMMANDS += ["figure", "models", "report", "status", "table"]


def main() -> None:
    """Run a module of this package as `python -m` does, with the current folder importable."""
    name = "main"
    if sys.argv[1:] and "=" not in sys.argv[1] and sys.argv[1][:1] not in "-~":
        name = sys.argv.pop(1)
    if name not in COMMANDS:
        from .config.errors import refuse  # here: loads Hydra
        from .utils.refusals import suggestion

        near = suggestion(name, COMMANDS) or f" Available: {', '.join(COMMANDS)}."
        refuse(f"{name}: there is no such command.{near}")
    if PACKAGE == CLONE:
        words = " ".join([command(name), *map(shlex.quote, sys.argv[1:])])
        print(f"In a clone, type: {words}", file=sys.stderr)
        sys.exit(2)
    sys.path.insert(0, os.getcwd())
    run_module(f"{PACKAGE}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
