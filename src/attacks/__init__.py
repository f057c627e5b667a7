"""Attacks: functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.define import Attack, attack
from src.attacks.fitted import FitBatch, FitTask, Fitted, NotFittedError, state_of
from src.attacks.libraries import foolbox, torchattacks
from src.attacks.losses import LOSSES
from src.attacks.parts import (
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
from src.attacks.per_image_random import (
    PerImageRandom,
    Philox,
    image_seeds,
    noise_signs,
    philox4x32,
    shuffle_pixels,
)
from src.attacks.projection import project
from src.attacks.settings import Settings
from src.attacks.source import Model, Source
from src.attacks.transferattack_clone import transferattack
from src.attacks.zoo.backward_relus import BackwardPropagation, LinearPropagation, bpa, linbp
from src.attacks.zoo.backward_skips import GhostNetwork, SkipGradient, ghost, sgm
from src.attacks.zoo.backward_transformers import PatchOut, TokenGradient, pna_patchout, tgr
from src.attacks.zoo.ensemble import CommonWeakness, VarianceReduction, cwa, svre
from src.attacks.zoo.feature_importance import (
    BlackBoxFeatures,
    FeatureImportance,
    NeuronAttribution,
    RandomPatch,
    bfa,
    fia,
    naa,
    rpa,
)
from src.attacks.zoo.feature_perturbation import (
    CleanFeatureMixup,
    IntermediateLevel,
    PerturbationDecay,
    cfm,
    ila,
    ilpd,
)
from src.attacks.zoo.fitted_generator import Generator, generator
from src.attacks.zoo.fitted_universal import UniversalPerturbation, uap
from src.attacks.zoo.fitted_weights import CollectedWeights, lgv
from src.attacks.zoo.gradient_momentum import emi, gi, mi, ni, pi_pregradient
from src.attacks.zoo.gradient_paths import IntegratedPaths, mumodig
from src.attacks.zoo.gradient_sampling import (
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
from src.attacks.zoo.gradient_steps import (
    PatchWise,
    bim,
    fgsm,
    fgsm_l2,
    pgd,
    pgd_l2,
    pi_patchwise,
    rfgsm,
)
from src.attacks.zoo.input_blocks import BlockShuffle, StructureInvariant, bsr, sia
from src.attacks.zoo.input_geometry import (
    DiverseInput,
    DiverseSizes,
    Warp,
    decowa,
    dem,
    di,
    mi_di_ti,
    ti,
)
from src.attacks.zoo.input_values import (
    Admix,
    MixMask,
    Scale,
    Spectrum,
    admix,
    si_ni,
    si_ni_di_ti,
    ssa,
    usmm,
)
from src.attacks.zoo.targeted import ScaledBlocks, logit_mi_di_ti, s4st
