"""Devices: what they support, their number formats and kernels, and GPUs shared by processes."""

import gc
import logging
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import stopping
from .files import writing
from .refusals import first_line, warn_once


@lru_cache(maxsize=256)
def constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return nested tuples as a tensor that is copied to a device once; do not modify it."""
    with torch.inference_mode(False):  # later calls may need its gradient
        return torch.tensor(values, dtype=dtype, device=device)


def is_cuda(device: torch.device | str) -> bool:
    """Return True if a device is a GPU of CUDA; nothing else here asks for this type."""
    return str(device).partition(":")[0] == "cuda"


def device_of(accelerator: str) -> str:
    """Return the type of device that `trainer.accelerator` means, on this machine if `auto`."""
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    gpu = "mps" if torch.backends.mps.is_available() else "cuda"
    return gpu if accelerator == "gpu" else accelerator


def computes_in_tf32(device: str) -> bool:
    """Return True if a device (`cpu`, `cuda`, ...) has instructions for TF32."""
    return device == "cuda" and torch.cuda.is_tf32_supported()


def computes_in_bfloat16(device: str) -> bool:
    """Return True if a device (`cpu`, `cuda`, ...) has instructions for bfloat16.

    Without them, bfloat16 is emulated and many times slower than float32.
    """
    if is_cuda(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    x86 = platform.machine() in ("x86_64", "AMD64")
    # oneDNN accepts bfloat16 on every x86 with AVX-512, but few of these have instructions for it.
    native = torch.cpu._is_avx512_bf16_supported() if x86 else True
    return bool(native and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def move_state(state: Mapping[str, Tensor], device: torch.device) -> Mapping[str, Tensor]:
    """Return tensors on a device if a quarter of its free memory holds them; else as they are."""
    size = sum(value.nbytes for value in state.values())
    if not is_cuda(device) or 4 * size > torch.cuda.mem_get_info(device)[0]:
        return state
    return {name: value.to(device) for name, value in state.items()}


@contextmanager
def arithmetic(device: str, precision: str) -> Iterator[None]:
    """Compute in a number format, regardless of what the caller has set.

    The caller's autocast and switches return at the end.

    Args:
        device: Type of the device, such as `cuda`.
        precision: `32-true`, float32 with whole mantissas; `tf32`, float32 whose products have
            short mantissas; `bf16` or `bf16-mixed`, autocasting to bfloat16.
    """
    low = precision.startswith("bf16")
    with (
        torch.autocast(device, torch.bfloat16 if low else None, enabled=low),
        _products("tf32" if precision == "tf32" else "ieee"),
        ExitStack() as restored,
    ):
        restored.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)  # some libraries set float64
        yield


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Set the precision of products of float32, `ieee` or `tf32`."""
    backends: Any = torch.backends
    switches = [backends, backends.cudnn]  # the others follow these two, unless they were set
    switches += [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    if precision == "ieee":  # few CPUs have TF32
        switches += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    with ExitStack() as restored:
        for switch in switches:
            if switch.fp32_precision != precision:
                _switch(restored, switch, fp32_precision=precision)
        yield


def _switch(restored: ExitStack, owner: Any, **values: Any) -> None:
    """Set attributes of an object until the end of a stack, which restores them."""
    for name, value in values.items():
        restored.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)


_FULL = (
    "CUBLAS_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN allocate outside PyTorch's allocator
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "can't allocate memory",  # on CPUs
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that a device has too little free memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)


@contextmanager
def named_errors(
    name: str, kind: type[ValueError] = ValueError, passed: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Name a user's code, such as `attack=mi`, in any error that it raises, of a `kind`.

    Errors that are `passed`, and those of too little memory, stay as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, passed) or is_out_of_memory(error):
            raise
        reason = first_line(error)
        if not isinstance(error, ValueError) or not reason:
            reason = f"{type(error).__name__}: {reason}".rstrip(": ")
        raise kind(f"{name}: {reason}") from error


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
    mode = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with (
        _collect_names(kernels),
        sdpa_kernel(SDPBackend.MATH),  # the others are not deterministic if they may only warn
        ExitStack() as restored,
    ):
        restored.callback(torch.use_deterministic_algorithms, mode, warn_only=warns)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # No result depends on what is in memory that is not filled.
        _switch(restored, torch.utils.deterministic, fill_uninitialized_memory=False)
        _switch(restored, torch.backends.cudnn, deterministic=True, benchmark=False)
        yield
    if kernels:
        warn_once("Another run may have other digits, due to %s.", ", ".join(sorted(kernels)))


@contextmanager
def _collect_names(kernels: set[str]) -> Iterator[None]:
    """Take PyTorch's warnings about kernels that are not deterministic; show all others."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, *place: Any, **options: Any) -> None:
            if named := _NAMED.search(str(message)):
                kernels.add(str(named[named.lastgroup or 0]))
            else:
                show(message, *place, **options)

        warnings.showwarning = collect
        warnings.filterwarnings("always", message=".*determinis", category=UserWarning)
        yield


def _is_possible() -> bool:
    """Return True if cuBLAS is deterministic; if not, warn once."""
    if WORKSPACE in os.environ:
        return True
    text = "Another run may have other digits: CUDA started before this program. Set %s=:4096:8."
    warn_once(text, WORKSPACE)
    return False


log = logging.getLogger(__name__)
_FOLDER = "transferability-gpus"
_PAUSE = 1.0  # seconds between two rounds of attempts


@contextmanager
def free_gpu() -> Iterator[int]:
    """Yield the number of a GPU that no other job uses, and keep it until the block ends.

    If all GPUs are in use, wait for one. The GPU that this process used last comes first, because
    its context remains there. The lock files lie in the machine's folder of temporary files, named
    by UUID: `CUDA_VISIBLE_DEVICES` changes a GPU's number. The system releases the lock of a killed
    process.
    """
    folder = Path(tempfile.gettempdir(), _FOLDER)
    with writing(folder):
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o777)  # all users of the machine share its GPUs
        number, lock = _take(folder)
    try:
        torch.cuda.set_device(number)
        yield number
    finally:
        gc.collect()
        torch.cuda.empty_cache()  # the process may live on
        lock.release()


def _take(folder: Path) -> tuple[int, FileLock]:
    """Lock one of the visible GPUs; return its number and the lock."""
    # Reading the properties makes no context on a GPU.
    names = [torch.cuda.get_device_properties(n).uuid for n in range(torch.cuda.device_count())]
    locks = [FileLock(folder / f"{name}.lock", mode=0o666) for name in names]
    last = torch.cuda.current_device()
    turns = sorted(range(len(locks)), key=lambda number: number != last)
    waiting = False
    while True:
        for number in [*turns]:
            try:
                with suppress(Timeout):
                    locks[number].acquire(blocking=False)
                    return number, locks[number]
            except OSError:  # the file cannot be opened
                turns.remove(number)
                if not turns:
                    raise
        if not waiting:
            log.info("Waiting for a GPU: other jobs use all %d.", len(locks))
        waiting = True
        stopping.raise_if_interrupted()
        time.sleep(_PAUSE)
