"""Deterministic kernels on GPUs."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.utils.devices import is_cuda
from src.utils.refusals import warn_once

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable that makes cuBLAS deterministic; the package sets it when it is imported."""
_NAMED = re.compile(
    r"(?P<kernel>\S+) does not have a deterministic|uses (?P<library>CuBLAS)"
    r"|^(?P<layer>.*attention) defaults to a non-deterministic",
    re.IGNORECASE,
)


@contextmanager
def deterministic(device: str, kernels: set[str]) -> Iterator[None]:
    """Choose deterministic kernels if the device is `cuda`; the caller's switches return.

    `kernels` receives the names of kernels that have no deterministic version.
    """
    if not is_cuda(device) or not _is_possible():
        yield
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
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            memory.fill_uninitialized_memory = fill
            cudnn.deterministic, cudnn.benchmark = choice
    if kernels:
        warn_once("Another run may have other digits, due to %s.", ", ".join(sorted(kernels)))


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


def _is_possible() -> bool:
    """Return True if cuBLAS is deterministic; if not, warn once."""
    if WORKSPACE in os.environ:
        return True
    text = "Another run may have other digits: CUDA ran before `src` was imported. Set %s=:4096:8."
    warn_once(text, WORKSPACE)
    return False
