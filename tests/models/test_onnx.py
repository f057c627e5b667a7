import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.models import onnx_network

onnx = pytest.importorskip("onnx", reason="it needs the extra onnx")
pytest.importorskip("onnx2torch", reason="it needs the extra onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

NAME = 'c"); open("ran", "w"); ("'  # must not run


def write_onnx(path: Path, *, shape=("N", 3, 8, 8), after: tuple[str, ...] = ()) -> Path:
    """Write a network of a convolution, a ReLU, pooling and a linear layer; `after` it operators.

    A fixed batch size is also a constant in the network.
    """
    random = np.random.default_rng(0)
    arrays = {
        "kernel": random.standard_normal((6, 3, 3, 3), np.float32),
        "matrix": random.standard_normal((6, 10), np.float32),
        "shape": np.array([shape[0] if shape[0] != "N" else 0, 6]),
    }
    nodes = [] if shape[1] == 3 else [("Transpose", ["x"], {"perm": [0, 3, 1, 2]})]
    nodes += [
        ("Conv", [f"x{len(nodes)}" if nodes else "x", "kernel"], {"kernel_shape": [3, 3]}),
        ("Relu", [f"x{len(nodes) + 1}"], {}),
        ("GlobalAveragePool", [f"x{len(nodes) + 2}"], {}),
        ("Reshape", [f"x{len(nodes) + 3}", "shape"], {}),
        ("Gemm", [f"x{len(nodes) + 4}", "matrix"], {}),
    ]
    nodes += [(kind, [f"x{len(nodes) + number}"], {}) for number, kind in enumerate(after)]
    graph = helper.make_graph(
        [
            helper.make_node(kind, inputs, [f"x{number}"], name=NAME, **keys)
            for number, (kind, inputs, keys) in enumerate(nodes, 1)
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{len(nodes)}", TensorProto.FLOAT, (shape[0], 10))],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [("N", 3, 8, 8), (1, 3, 8, 8), ("N", 8, 8, 3), (1, 8, 8, 3)])
def test_logits_and_gradients_are_those_of_the_file(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    file = write_onnx(tmp_path / "net.onnx", shape=shape)
    network = onnx_network(str(file))
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = (images if shape[1] == 3 else images.permute(0, 2, 3, 1)).numpy()
    reference = ReferenceEvaluator(onnx.load(file))
    expected = [reference.run(None, {"x": image[None]})[0][0] for image in inputs]
    torch.testing.assert_close(network(images), torch.tensor(np.array(expected)))
    exact = images[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(network.double(), exact)  # finite differences
    assert not Path("ran").exists()


def test_what_is_no_network_is_refused(tmp_path, monkeypatch):
    file = write_onnx(tmp_path / "net.onnx", after=("Det", "Relu", "Bernoulli", "Det"))
    with pytest.raises(ValueError, match=r"for Bernoulli, Det \(opset 17\)"):
        onnx_network(str(file))
    for content in (b"", b"hello", file.read_bytes()[:300]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.onnx cannot be read as an ONNX network"):
            onnx_network(str(file))
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[onnx\]'"):
        onnx_network("net.onnx")
