"""The program's whole sweep beside those of torchattacks, foolbox and ART: `python -m benchmarks`.

This file imports nothing: the processes that are timed start in this package.
"""

STEPS = 10
"""Steps of the iterative attacks, in every library."""
