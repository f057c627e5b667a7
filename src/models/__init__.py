"""Classifiers: architectures, their weights, and their wrapper for images in [0, 1]."""

from .batch_norm_folding import fold_batch_norms
from .build import build_classifier, check_gradient, try_classifier
from .onnx_file import onnx_network
from .pixel_classifier import (
    Ensemble,
    ModelError,
    PixelClassifier,
    choose_layout,
    use_channels_last,
)
from .weights import (
    MisfitError,
    WeightFacts,
    load_weights,
    network_text,
    save_weights,
    tensors_of,
    weight_facts,
    weights_digest,
)
