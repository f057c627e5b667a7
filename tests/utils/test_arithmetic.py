"""Number formats, set and restored whatever the caller has set, and errors of a full device."""

import pytest
import torch

from src.utils.devices import arithmetic, is_out_of_memory

BACKENDS = torch.backends
GENERAL = {"all": BACKENDS, "cudnn": BACKENDS.cudnn}
ON_GPU = {
    **{"matmul": BACKENDS.cuda.matmul, "conv": BACKENDS.cudnn.conv, "rnn": BACKENDS.cudnn.rnn}
}
ON_CPU = {
    "matmul": BACKENDS.mkldnn.matmul,
    "conv": BACKENDS.mkldnn.conv,
    "rnn": BACKENDS.mkldnn.rnn,
}


def read() -> list[str]:
    """All switches, and what older functions say about them."""
    switches = [*GENERAL.values(), *ON_GPU.values(), *ON_CPU.values()]
    values = [switch.fp32_precision for switch in switches]
    older = (
        torch.get_float32_matmul_precision,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
    )
    for function in older:
        try:
            values.append(str(function()))
        except RuntimeError:  # new switches say what the older ones cannot
            values.append("unknown")
    return values


def nothing() -> None:
    pass


def all_tf32() -> None:
    BACKENDS.fp32_precision = "tf32"


def one_ieee() -> None:
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


def older_name() -> None:
    torch.set_float32_matmul_precision("medium")


def oldest_names() -> None:
    BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32 = True, False


def several() -> None:
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"
    BACKENDS.cudnn.fp32_precision = "tf32"
    BACKENDS.cuda.matmul.fp32_precision = "ieee"


SETTINGS = [nothing, all_tf32, one_ieee, older_name, oldest_names, several]


def in_new_process(setting, precision):
    """What the switches are before, within and after, and once another default is set."""
    setting()
    before = read()
    with arithmetic("cpu", precision):
        gpu = {switch.fp32_precision for switch in ON_GPU.values()}
        cpu = {switch.fp32_precision for switch in ON_CPU.values()}
        with arithmetic("cpu", "32-true"):
            inner = {switch.fp32_precision for switch in (*ON_GPU.values(), *ON_CPU.values())}
        again = {switch.fp32_precision for switch in ON_GPU.values()}
    after = read()
    BACKENDS.fp32_precision = "ieee"
    return before, after, gpu, cpu, inner, again, read()


def as_default(setting):
    setting()
    BACKENDS.fp32_precision = "ieee"
    return read()


@pytest.fixture(scope="module")
def apart():
    """A function that calls another in a new process: there is no way back to the first state."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    def call(function, *arguments):
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            return pool.submit(function, *arguments).result()

    return call


@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_products_have_their_precision_and_switches_are_restored(setting, precision, apart):
    before, after, gpu, cpu, inner, again, later = apart(in_new_process, setting, precision)
    assert gpu == again == {"tf32" if precision == "tf32" else "ieee"}
    assert inner == {"ieee"}
    assert precision == "tf32" or cpu == {"ieee"}
    assert after == before
    assert later == apart(as_default, setting)  # those that followed a default still follow it


@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16"])
def test_autocasting_is_that_of_the_precision(precision):
    with torch.autocast("cpu", torch.float16):
        with arithmetic("cpu", precision):
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
            assert precision != "bf16" or torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.get_autocast_dtype("cpu") == torch.float16


def test_an_error_leaves_the_switches_as_they_were():
    before = read()
    with pytest.raises(ZeroDivisionError), arithmetic("cpu", "tf32"):
        raise ZeroDivisionError
    assert read() == before


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
]
OTHERS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("CUBLAS_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_device_is_told_from_its_error(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_not_those_of_a_full_device(error):
    assert not is_out_of_memory(error)


def test_a_cpu_without_memory_is_told_from_its_error():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)
