"""Which of the processes that share a job this is."""

import os

from pytorch_lightning.utilities.rank_zero import rank_zero_only


def is_first_process() -> bool:
    """Tell whether this process is the one that writes files and tracks runs.

    Lightning reads the rank from what torchrun, SLURM or Lightning itself put into the
    environment; on the other machines of a job it learns it only when the processes meet.
    """
    other_node = any(os.environ.get(key, "0") != "0" for key in ("NODE_RANK", "GROUP_RANK"))
    return getattr(rank_zero_only, "rank", 0) == 0 and not other_node
