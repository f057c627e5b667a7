"""Networks in ONNX files, converted to torch modules with onnx2torch."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from ..utils.files import reading
from ..utils.package import install_command
from ..utils.refusals import first_line


def onnx_network(file: str) -> nn.Module:
    """Convert an ONNX file to a network with its weights, in float32.

    Layers are named by their operator and their number in the file, such as `Relu_12`. A network
    for images (N, H, W, 3) gets a transposition in front. A network that was exported for a batch
    of one image classifies images one by one.

    Raises:
        ValueError: onnx2torch is not installed, the file is not an ONNX network, or operators
            cannot be converted.
    """
    model = _read(file)
    if len(outputs := [value.name for value in model.graph.output]) > 1:
        raise ValueError(f"{file} has the outputs {', '.join(outputs)}. Export the logits alone.")
    for number, node in enumerate(model.graph.node):  # names end up in generated code
        node.name = f"{node.op_type}_{number}"
    import onnx2torch

    try:
        network: nn.Module = onnx2torch.convert(model).float().eval()
    except Exception as error:  # of any type: each operator has its own converter
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        if operators := _find_unconvertible(model):
            versions = ", ".join(str(opset.version) for opset in model.opset_import)
            reason = (
                f"onnx2torch has no conversion for {', '.join(operators)} (opset {versions}). "
                "Export the network without these operators, or with another opset"
            )
        raise ValueError(f"{file} cannot be converted: {reason}.") from error
    shape = _input_shape(model)
    if len(shape) == 4 and shape[3] == 3 != shape[1]:
        from torchvision.ops import Permute

        network = nn.Sequential(Permute([0, 2, 3, 1]), network)
        shape = [shape[0], 3, *shape[1:3]]
    return network if _takes_batches(network, shape) else _OneByOne(network)


def onnx_input_size(file: str) -> int | None:
    """Return the side in pixels of the images that an ONNX file was exported for, if it is fixed.

    Raises:
        ValueError: onnx2torch is not installed, or the file is not an ONNX network.
    """
    sides = {side for side in _input_shape(_read(file, weights=False))[1:] if side not in (1, 3)}
    return sides.pop() or None if len(sides) == 1 else None


class _OneByOne(nn.Module):
    """Network that gets a batch's images one by one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, num_classes) of images (N, 3, H, W)."""
        return torch.cat([self.network(image) for image in images.split(1)])


def _read(file: str, weights: bool = True) -> Any:
    """Read a file as ONNX; with `weights=False` without those in other files."""
    try:
        import onnx
        import onnx2torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: {install_command('onnx')}") from error
    with reading(file, "an ONNX network"):
        model = onnx.load(file, load_external_data=weights)
        if not model.graph.node:
            raise ValueError("its graph is empty")
    return model


def _input_shape(model: Any) -> list[int]:
    """Return the shape of a network's input; 0 for sizes that are not fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return [size.dim_value for size in inputs[0].type.tensor_type.shape.dim] if inputs else []


def _takes_batches(network: nn.Module, shape: list[int]) -> bool:
    """Return False if two images fail together, or get other logits than apart."""
    if len(shape) != 4 or not all(shape[1:]):
        return True  # not known
    images = torch.rand(2, *shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), suppress(Exception):  # a constant may hold the batch size
        alone = [network(image) for image in images.split(1)]
        return torch.allclose(network(images), torch.cat(alone), rtol=1e-3, atol=1e-3)
    return False


def _find_unconvertible(model: Any) -> list[str]:
    """Return the types of operators that onnx2torch cannot convert."""
    from onnx.shape_inference import infer_shapes
    from onnx2torch.node_converters import get_converter
    from onnx2torch.onnx_graph import OnnxGraph

    graph, failed = OnnxGraph(infer_shapes(model).graph), set[str]()
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for node in graph.nodes.values():
        operation, domain = node.operation_type, node.domain
        try:
            get_converter(operation, versions.get(domain, 0), domain)(node, graph)
        except Exception:  # of any type
            failed.add(operation)
    return sorted(failed)
