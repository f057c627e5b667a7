"""Folding of batch norms into the convolutions before them, for frozen networks."""

from collections import Counter
from typing import Any, TypeVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..utils.networks import copy_network

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold_batch_norms(network: ModuleT) -> ModuleT:
    """Return an evaluation-mode copy with batch norms folded into the convolutions before them.

    The copy is faster, and exact up to rounding. It keeps the module structure, but not the state
    dict. Nothing is folded if the network's data flow cannot be traced.
    """
    folded = copy_network(network)
    for module in folded.modules():  # whatever the network's own eval() does
        module.training = False
    _fold(folded)
    return folded


class _Tracer(fx.Tracer):
    """Tracer that does not look into layers, such as those that pad to a size."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.BatchNorm2d) or next(m.children(), None) is None
        return leaf or super().is_leaf_module(m, module_qualified_name)


def _fold(network: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution, in place."""
    try:
        # A network that keeps values would keep those of the trace, so a copy is traced.
        tensors = [*network.parameters(), *network.buffers()]
        graph = _Tracer().trace(copy_network(network, {id(tensor): tensor for tensor in tensors}))
    except Exception:  # of any type: the control flow may depend on the data
        return
    modules: dict[str, nn.Module] = dict(network.named_modules())
    uses = Counter(_owner(node) for node in graph.nodes)
    names = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    for node in graph.nodes:
        before = _only_input(node)
        if before is None or uses[str(node.target)] > 1 or uses[str(before.target)] > 1:
            continue
        convolution, norm = modules[str(before.target)], modules[str(node.target)]
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if names[convolution] > 1 or names[norm] > 1:  # the other name would stay unfolded
            continue
        after = _remainder(norm)
        if _is_plain(convolution) and after is not None:
            network.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(str(node.target), after)


def _owner(node: fx.Node) -> str | None:
    """Return the module that a node calls or whose parameter it reads."""
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0]
    return str(node.target) if node.op == "call_module" else None


def _only_input(node: fx.Node) -> fx.Node | None:
    """Return the module call whose output goes to this module call and nowhere else."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    before: Any = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    return before


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Return False where hooks or a subclass may change the weight; ``Conv2dSame`` only pads."""
    hooked = convolution._forward_pre_hooks or convolution._forward_hooks
    is_plain = type(convolution) is nn.Conv2d or type(convolution).__name__ == "Conv2dSame"
    return is_plain and not hooked


def _remainder(norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return the layers that remain of a folded batch norm, or None if it cannot be folded."""
    if norm.running_var is None or norm._forward_pre_hooks or norm._forward_hooks:
        return None
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm's: norm, drop, activation
        return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
    return None
