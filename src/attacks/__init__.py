"""Attacks: functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.define import Attack, attack
from src.attacks.external.libraries import foolbox, torchattacks
from src.attacks.external.transferattack import transferattack
from src.attacks.fitted import FitBatch, FitTask, Fitted, NotFittedError, state_of
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
from src.attacks.per_image_random import PerImageRandom, image_seeds, noise_signs, shuffle_pixels
from src.attacks.philox import Philox, philox4x32
from src.attacks.projection import project
from src.attacks.settings import Settings
from src.attacks.source import Model, Source
from src.attacks.zoo.backward.backward_propagation import BackwardPropagation, bpa
from src.attacks.zoo.backward.ghost_network import GhostNetwork, ghost
from src.attacks.zoo.backward.linear_propagation import LinearPropagation, linbp
from src.attacks.zoo.backward.patch_out import PatchOut, pna_patchout
from src.attacks.zoo.backward.skip_gradient import SkipGradient, sgm
from src.attacks.zoo.backward.token_gradient import TokenGradient, tgr
from src.attacks.zoo.ensemble.common_weakness import CommonWeakness, cwa
from src.attacks.zoo.ensemble.variance_reduction import VarianceReduction, svre
from src.attacks.zoo.feature.black_box_features import BlackBoxFeatures, bfa
from src.attacks.zoo.feature.clean_feature_mixup import CleanFeatureMixup, cfm
from src.attacks.zoo.feature.feature_importance import FeatureImportance, fia
from src.attacks.zoo.feature.intermediate_level import IntermediateLevel, ila
from src.attacks.zoo.feature.neuron_attribution import NeuronAttribution, naa
from src.attacks.zoo.feature.perturbation_decay import PerturbationDecay, ilpd
from src.attacks.zoo.feature.random_patch import RandomPatch, rpa
from src.attacks.zoo.fitted.collected_weights import CollectedWeights, lgv
from src.attacks.zoo.fitted.generator import Generator, generator
from src.attacks.zoo.fitted.universal import UniversalPerturbation, uap
from src.attacks.zoo.gradient.basic import bim, fgsm, fgsm_l2, pgd, pgd_l2, rfgsm
from src.attacks.zoo.gradient.enhanced_momentum import emi
from src.attacks.zoo.gradient.expected_flatness import ExpectedFlatness, mef
from src.attacks.zoo.gradient.gradient_relevance import GradientRelevance, ShrinkingSteps, gra
from src.attacks.zoo.gradient.integrated_paths import IntegratedPaths, mumodig
from src.attacks.zoo.gradient.momentum import gi, mi, ni, pi_pregradient
from src.attacks.zoo.gradient.patch_wise import PatchWise, pi_patchwise
from src.attacks.zoo.gradient.penalised_norm import PenalisedGradientNorm, pgn
from src.attacks.zoo.gradient.reverse_perturbation import ReversePerturbation, rap
from src.attacks.zoo.gradient.variance_tuning import vmi, vni
from src.attacks.zoo.input.block_shuffle import BlockShuffle, bsr
from src.attacks.zoo.input.diverse_input import DiverseInput, DiverseSizes, dem, di, mi_di_ti
from src.attacks.zoo.input.scaled_copies import (
    Admix,
    MixMask,
    Scale,
    admix,
    si_ni,
    si_ni_di_ti,
    usmm,
)
from src.attacks.zoo.input.spectrum import Spectrum, ssa
from src.attacks.zoo.input.structure_invariance import StructureInvariant, sia
from src.attacks.zoo.input.translation import ti
from src.attacks.zoo.input.warp import Warp, decowa
from src.attacks.zoo.targeted.logit import logit_mi_di_ti
from src.attacks.zoo.targeted.scaled_blocks import ScaledBlocks, s4st
