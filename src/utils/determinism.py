"""Deterministic kernels on GPUs."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger(__name__)

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable that makes cuBLAS deterministic; cuBLAS reads it when it starts."""
_NAMED = re.compile(
    r"(?P<kernel>\S+) does not have a deterministic|uses (?P<library>CuBLAS)"
    r"|^(?P<layer>.*attention) defaults to a non-deterministic",
    re.IGNORECASE,
)


@contextmanager
def deterministic(device: str) -> Iterator[set[str]]:
    """Choose deterministic kernels if the device is `cuda`; the caller's switches return.

    Yields a set that receives the names of kernels that are not deterministic.
    """
    kernels = set[str]()
    if device != "cuda" or not _is_possible():
        yield kernels
        return
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    mode = torch.are_deterministic_algorithms_enabled()
    before = mode, torch.is_deterministic_algorithms_warn_only_enabled()
    fill, choice = memory.fill_uninitialized_memory, (cudnn.deterministic, cudnn.benchmark)
    with (
        _collect_names(kernels),
        sdpa_kernel(SDPBackend.MATH),  # the others are not deterministic if they may only warn
    ):
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            memory.fill_uninitialized_memory = False  # no result depends on it
            cudnn.deterministic, cudnn.benchmark = True, False
            yield kernels
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            memory.fill_uninitialized_memory = fill
            cudnn.deterministic, cudnn.benchmark = choice
    if kernels:
        names = ", ".join(sorted(kernels))
        log.warning("Not deterministic on a GPU: %s. Another run may have other digits.", names)


@contextmanager
def _collect_names(kernels: set[str]) -> Iterator[None]:
    """Take PyTorch's warnings about kernels that are not deterministic; show all others."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def collect(message: Warning | str, *place: Any, **options: Any) -> None:
            if named := _NAMED.search(str(message)):
                kernels.add(str(named[named.lastgroup or 0]))
            else:
                shown(message, *place, **options)

        warnings.showwarning = collect
        warnings.filterwarnings("always", message=".*determinis", category=UserWarning)
        yield


@cache
def _is_possible() -> bool:
    """Return True if cuBLAS is deterministic; if not, warn once."""
    ready = WORKSPACE in os.environ
    if not ready:
        log.warning(
            "Rows may differ between runs: CUDA ran before this package was imported. Import `src` "
            "first, or set %s=:4096:8.",
            WORKSPACE,
        )
    return ready
