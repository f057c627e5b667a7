"""Words that settings and statistics share."""

from typing import Literal

Protocol = Literal["all", "source_correct", "target_correct", "joint", "common"]
CONTROLS = {"noise": "random-sign noise", "shuffled": "shuffled perturbations"}
"""Controls by the name of their table, `predictions-NAME`, in order of evaluation."""
