"""Attacks: functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.adapters import foolbox, torchattacks
from src.attacks.estimators.common_weakness import CommonWeakness
from src.attacks.estimators.expected_flatness import ExpectedFlatness
from src.attacks.estimators.gradient_relevance import GradientRelevance
from src.attacks.estimators.integrated_paths import IntegratedPaths
from src.attacks.estimators.patch_out import PatchOut
from src.attacks.estimators.penalised_norm import PenalisedGradientNorm
from src.attacks.estimators.reverse_perturbation import ReversePerturbation
from src.attacks.estimators.variance_reduction import VarianceReduction
from src.attacks.family import (
    admix,
    bfa,
    bim,
    bpa,
    bsr,
    cfm,
    cwa,
    decowa,
    dem,
    di,
    emi,
    fgsm,
    fgsm_l2,
    fia,
    ghost,
    gi,
    gra,
    ila,
    ilpd,
    linbp,
    logit_mi_di_ti,
    mef,
    mi,
    mi_di_ti,
    mumodig,
    naa,
    ni,
    pgd,
    pgd_l2,
    pgn,
    pi_patchwise,
    pi_pregradient,
    pna_patchout,
    rap,
    rfgsm,
    rpa,
    s4st,
    sgm,
    si_ni,
    si_ni_di_ti,
    sia,
    ssa,
    svre,
    tgr,
    ti,
    usmm,
    vmi,
    vni,
)
from src.attacks.interfaces import (
    Estimator,
    Gradient,
    Losses,
    Objective,
    Problem,
    State,
    Surrogate,
    Transform,
    Update,
)
from src.attacks.losses import LOSSES
from src.attacks.objectives.black_box_features import BlackBoxFeatures
from src.attacks.objectives.clean_feature_mixup import CleanFeatureMixup
from src.attacks.objectives.feature_importance import FeatureImportance
from src.attacks.objectives.intermediate_level import IntermediateLevel
from src.attacks.objectives.neuron_attribution import NeuronAttribution
from src.attacks.objectives.perturbation_decay import PerturbationDecay
from src.attacks.objectives.random_patch import RandomPatch
from src.attacks.per_image_random import PerImageRandom, image_seeds, noise_signs
from src.attacks.philox import Philox, philox4x32
from src.attacks.projection import project
from src.attacks.published import Attack
from src.attacks.settings import Settings
from src.attacks.source import Model, Source
from src.attacks.surrogates.backward_propagation import BackwardPropagation
from src.attacks.surrogates.ghost_network import GhostNetwork
from src.attacks.surrogates.linear_propagation import LinearPropagation
from src.attacks.surrogates.skip_gradient import SkipGradient
from src.attacks.surrogates.token_gradient import TokenGradient
from src.attacks.transforms.block_shuffle import BlockShuffle
from src.attacks.transforms.diverse_input import DiverseInput, DiverseSizes
from src.attacks.transforms.scaled_blocks import ScaledBlocks
from src.attacks.transforms.scales import Admix, MixMask, Scale
from src.attacks.transforms.spectrum import Spectrum
from src.attacks.transforms.structure import StructureInvariant
from src.attacks.transforms.warp import Warp
from src.attacks.updates import PatchWise, ShrinkingSteps
