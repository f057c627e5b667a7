"""Adversarial images from a trained generator."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ...utils.files import reading
from ...utils.networks import copy_network
from .. import ALL_BUT_NORM, Gradient, OddSize, State, attack, checked
from ..landscape import smooth
from ..libraries import floats_like
from .fitted_universal import as_it_is, load_tensors


@checked
class Generator:
    """Let a trained network generate the adversarial image.

    Attributes:
        network: Module from images in [0, 1], (N, 3, H, W), to images of that shape.
        file: Weights of the network, a `.safetensors` or torch.save file; null: those it has.
        smoothing: Side of the Gaussian that smooths the generated image, odd; 0: none.

    Reference: Naseer et al. (2019), arXiv 1905.11736, section 3.1; Naseer et al. (2021), arXiv
    2103.14641, for the smoothing (side 3).

    Deviation: the Gaussian spans three standard deviations, with black beyond the border.
    """

    network: nn.Module | None = None
    file: str | None = None
    smoothing: OddSize = 0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        images = state.images[0]
        if self.network is None:
            raise ValueError("attack.network=null: name the generator's class or function")
        network = _with_weights(self.network, self.file).to(images.device)
        with torch.no_grad():
            generated = floats_like(images, network(images), "the generator")
        changes = smooth(generated, self.smoothing) - images
        return changes.expand_as(state.images)


def _with_weights(network: nn.Module, file: str | None) -> nn.Module:
    """Return a copy of a generator with a file's weights, without unpickling objects."""
    network = copy_network(network)
    if file is not None:
        with reading(file, "the generator's weights"):
            network.load_state_dict(load_tensors(Path(file)))
    return network.eval().requires_grad_(False)


@attack(
    gradients=0,
    targeted=False,
    fixed=ALL_BUT_NORM,
    estimator=Generator,
    update=as_it_is,
    steps=1,
    normalised=False,
)
def generator() -> None:
    """Generate images with a trained network and project them onto the ball.

    Name: Cross-Domain Attack.
    Reference: Naseer et al. (2019), arXiv 1905.11736.
    """
