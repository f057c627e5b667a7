"""`python -m transferability`, or `python -m src`: the command `transferability`."""

from .console import main

main()
