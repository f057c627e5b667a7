"""Attacks: functions from (model, images, labels, eps) to adversarial images."""

from .adapter import adapt
from .define import Attack, attack
from .fitted import FitBatch, FitTask, Fitted, NotFittedError, state_of
from .libraries import foolbox, torchattack, torchattacks
from .losses import LOSSES
from .parts import (
    BackwardRule,
    Estimator,
    Gradient,
    Losses,
    Objective,
    Problem,
    State,
    Transform,
    Update,
)
from .per_image_random import (
    PerImageRandom,
    Philox,
    image_seeds,
    noise_signs,
    philox4x32,
    shuffle_pixels,
)
from .projection import project
from .settings import Settings
from .source import Model, Source
from .transferattack_clone import transferattack
from .zoo.backward_relus import BackwardPropagation, LinearPropagation, bpa, linbp
from .zoo.backward_skips import GhostNetwork, SkipGradient, ghost, sgm
from .zoo.backward_transformers import PatchOut, TokenGradient, pna_patchout, tgr
from .zoo.ensemble import CommonWeakness, VarianceReduction, cwa, svre
from .zoo.feature_importance import (
    BlackBoxFeatures,
    FeatureImportance,
    NeuronAttribution,
    RandomPatch,
    bfa,
    fia,
    naa,
    rpa,
)
from .zoo.feature_perturbation import (
    CleanFeatureMixup,
    IntermediateLevel,
    PerturbationDecay,
    cfm,
    ila,
    ilpd,
)
from .zoo.fitted_generator import Generator, generator
from .zoo.fitted_universal import UniversalPerturbation, uap
from .zoo.fitted_weights import CollectedWeights, lgv
from .zoo.gradient_momentum import emi, gi, mi, ni, pi_pregradient
from .zoo.gradient_paths import IntegratedPaths, mumodig
from .zoo.gradient_sampling import (
    ExpectedFlatness,
    GradientRelevance,
    PenalisedGradientNorm,
    ReversePerturbation,
    ShrinkingSteps,
    gra,
    mef,
    pgn,
    rap,
    vmi,
    vni,
)
from .zoo.gradient_steps import PatchWise, bim, fgsm, fgsm_l2, pgd, pgd_l2, pi_patchwise, rfgsm
from .zoo.input_blocks import BlockShuffle, StructureInvariant, bsr, sia
from .zoo.input_geometry import DiverseInput, DiverseSizes, Warp, decowa, dem, di, mi_di_ti, ti
from .zoo.input_operations import LearnedOperations, OperatorSampling, l2t, ops
from .zoo.input_values import Admix, MixMask, Scale, Spectrum, admix, si_ni, si_ni_di_ti, ssa, usmm
from .zoo.targeted import ScaledBlocks, logit_mi_di_ti, s4st
