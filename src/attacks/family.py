"""The published attacks: `ascend` with the settings of a paper.

Each has the name that it has on the command line. Its docstring gives the formula, and says where
the attack is not the paper's; `Settings` says what the keywords mean that all have in common.
"""

from src.attacks.estimators.common_weakness import CommonWeakness
from src.attacks.estimators.enhanced_momentum import EnhancedMomentum
from src.attacks.estimators.expected_flatness import ExpectedFlatness
from src.attacks.estimators.gradient_relevance import GradientRelevance
from src.attacks.estimators.integrated_paths import IntegratedPaths
from src.attacks.estimators.patch_out import PatchOut
from src.attacks.estimators.penalised_norm import PenalisedGradientNorm
from src.attacks.estimators.reverse_perturbation import ReversePerturbation
from src.attacks.estimators.variance_reduction import VarianceReduction
from src.attacks.estimators.variance_tuning import VarianceTuning
from src.attacks.objectives.black_box_features import BlackBoxFeatures
from src.attacks.objectives.clean_feature_mixup import CleanFeatureMixup
from src.attacks.objectives.feature_importance import FeatureImportance
from src.attacks.objectives.intermediate_level import IntermediateLevel
from src.attacks.objectives.neuron_attribution import NeuronAttribution
from src.attacks.objectives.perturbation_decay import PerturbationDecay
from src.attacks.objectives.random_patch import RandomPatch
from src.attacks.published import published
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

_STEPS = ["steps", "step_size_255", "relative_step_size", "warm_up_steps", "warm_up_scale"]
_STEPS += ["random_start", "start_radius", "restarts"]


@published(fixed=_STEPS, steps=1)
def fgsm() -> None:
    """Fast gradient sign method: x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1).

    One gradient serves every budget. With `targeted` and the least likely class as label it is the
    one-step least-likely-class method of Kurakin et al. 2017 (arXiv 1611.01236).

    Reference:
        Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
        arXiv 1412.6572. The clipping to the pixel range is common practice since.
    """


@published(fixed=_STEPS, steps=1, norm="l2")
def fgsm_l2() -> None:
    """Fast gradient method for L2: x_adv = clip(x + eps * g / rms(g), 0, 1), g = grad_x L(f(x), y).

    Reference:
        Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
        arXiv 1412.6572.
    """


@published()
def bim() -> None:
    """Basic iterative method: x_{t+1} = project(x_t + a * sign(grad_x L(f(x_t), y))), a = eps / 10.

    With `targeted` and the least likely class as label it is the iterative least-likely-class
    method of the same paper.

    Reference:
        Kurakin, Goodfellow, Bengio: Adversarial Machine Learning at Scale (2017),
        arXiv 1611.01236.

    Deviation: 10 steps of eps / 10; the paper takes min(eps + 4, 1.25 eps) steps of 1/255.
    """


@published(random_start="uniform", relative_step_size=0.25)
def pgd() -> None:
    """Projected gradient descent: `bim` from x + U(-eps, eps), and the best of the restarts.

    Reference:
        Madry et al.: Towards Deep Learning Models Resistant to Adversarial Attacks (2018),
        arXiv 1706.06083.

    Deviation: 10 steps of eps / 4; the paper takes 100 of eps / 40.
    """


@published(random_start="uniform", relative_step_size=0.25, norm="l2")
def pgd_l2() -> None:
    """Projected gradient descent in the L2 ball, from a start that is uniform in it; see `pgd`."""


@published(
    fixed=["steps", "restarts"],
    steps=1,
    random_start="sign",
    start_radius=0.5,
    relative_step_size=0.5,
)
def rfgsm() -> None:
    """R+FGSM: a random sign step of half the budget, then a gradient step with what is left of it.

    x' = x + a * sign(N(0, I)); x_adv = x' + (eps - a) * sign(grad L(f(x'), y)), with a / eps the
    `start_radius` and 1 - a / eps the `relative_step_size`.

    Reference:
        Tramer et al.: Ensemble Adversarial Training (2018), arXiv 1705.07204.

    Deviation: a is eps / 2 for every data set; the authors' code has 0.05 of 0.3 for MNIST.
    """


@published(decay=1.0)
def mi() -> None:
    """Momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

    Reference:
        Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081.
    """


@published(decay=1.0, lookahead="momentum")
def ni() -> None:
    """Nesterov: the gradient is taken where the momentum would lead, x_t + a * mu * m_{t-1}.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance (2020), arXiv 1908.06281.
    """


@published(decay=1.0, lookahead="gradient")
def pi_pregradient() -> None:
    """Pre-gradient guided momentum: the gradient is taken where the last one alone would lead.

    That is x_t + a * g_{t-1} / mean|g_{t-1}|. Not the patch-wise attack, which is called PI-FGSM
    too.

    Reference:
        Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
        arXiv 2103.10609.
    """


@published(decay=1.0, warm_up_steps=5, warm_up_scale=10.0)
def gi() -> None:
    """Global momentum initialisation: `mi` that starts with the momentum of a wide search.

    The search is `mi` itself, with `warm_up_steps` of `warm_up_scale` * a, projected as all are.

    Reference:
        Wang et al.: Boosting the Transferability of Adversarial Attacks with Global Momentum
        Initialization (2022), arXiv 2211.11236.
    """


@published(estimator=EnhancedMomentum, decay=1.0)
def emi() -> None:
    """Enhanced momentum (EMI-FGSM)."""


@published(estimator=VarianceTuning, decay=1.0)
def vmi() -> None:
    """Variance tuning with momentum (VMI-FGSM)."""


@published(estimator=VarianceTuning, decay=1.0, lookahead="momentum")
def vni() -> None:
    """Variance tuning with the look-ahead of `ni` (VNI-FGSM)."""


@published(transform=DiverseInput, decay=1.0)
def di() -> None:
    """Input diversity, with momentum and steps of eps / 10 (authors: without, steps of 1/255)."""


@published(decay=1.0, kernel_size=15)
def ti() -> None:
    """Translation invariance: `mi` of smoothed gradients W * g_t, as if shifted images were shown.

    Reference:
        Dong et al.: Evading Defenses to Transferable Adversarial Examples by Translation-Invariant
        Attacks (2019), arXiv 1904.02884.

    Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
    """


@published(transform=DiverseInput, decay=1.0, probability=0.7, kernel_size=15)
def mi_di_ti() -> None:
    """Momentum, input diversity and translation invariance (TI-DIM, Dong et al. 2019)."""


@published(transform=Scale, decay=1.0, lookahead="momentum")
def si_ni() -> None:
    """Scale invariance with the look-ahead of `ni` (SI-NI-FGSM)."""


@published(
    transform=Scale,
    decay=1.0,
    lookahead="momentum",
    kernel_size=7,
    transforms=(DiverseInput(0.5, 1.1),),
)
def si_ni_di_ti() -> None:
    """`si_ni` with input diversity and smoothed gradients (SI-NI-TI-DIM, Lin et al. 2020)."""


@published(transform=Admix, decay=1.0)
def admix() -> None:
    """Admix with momentum."""


@published(transform=MixMask, decay=1.0)
def usmm() -> None:
    """Uniform scales and mix masks with momentum."""


@published(transform=DiverseSizes, decay=1.0, relative_step_size=1.0, copies_average="logits")
def dem() -> None:
    """Diversity ensemble: the mean logits of five resized copies, in steps of the whole budget."""


@published(transform=Spectrum, decay=1.0)
def ssa() -> None:
    """Spectrum simulation, with momentum, which the authors' script leaves out."""


@published(transform=BlockShuffle, decay=1.0)
def bsr() -> None:
    """Block shuffle and rotation with momentum."""


@published(transform=StructureInvariant, decay=1.0)
def sia() -> None:
    """Structure invariance, with momentum, which the authors' script leaves out."""


@published(estimator=PenalisedGradientNorm, decay=1.0)
def pgn() -> None:
    """Penalised gradient norm with momentum: ascent to where the loss is high and flat."""


@published(estimator=GradientRelevance, update=ShrinkingSteps, decay=1.0)
def gra() -> None:
    """Gradient relevance (GRA): momentum, and steps that shrink where it turns."""


@published(estimator=ExpectedFlatness, decay=0.5, steps=20, relative_step_size=0.1)
def mef() -> None:
    """Maximin expected flatness (MEF): momentum of 0.5, and 20 steps of eps / 10."""


@published(estimator=ReversePerturbation, steps=400, relative_step_size=0.125)
def rap() -> None:
    """Reverse adversarial perturbation (RAP): 400 steps of eps / 8, without momentum."""


@published(estimator=IntegratedPaths, decay=1.0)
def mumodig() -> None:
    """Multiple monotonic diversified integrated gradients (MuMoDIG), with momentum."""


@published(transform=Warp, decay=1.0)
def decowa() -> None:
    """Deformation-constrained warping with momentum."""


@published(update=PatchWise)
def pi_patchwise() -> None:
    """Patch-wise iterative method (PI-FGSM of Gao et al.), without momentum."""


@published(estimator=CommonWeakness, decay=1.0, relative_step_size=0.2)
def cwa() -> None:
    """Common weakness of an ensemble (MI-CWA): `mi` along the ways that its members' steps lead.

    Deviation: the momentum's terms are divided by an image's own mean (authors: by the L1 norm of
    the batch).
    """


@published(estimator=VarianceReduction, decay=1.0)
def svre() -> None:
    """Stochastic variance reduced ensemble (SVRE), with momentum."""


@published(
    transform=DiverseInput,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    normalised=False,
    probability=0.7,
    kernel_size=5,
)
def logit_mi_di_ti() -> None:
    """Targeted preset: the target's logit with `mi_di_ti`, 300 steps and unnormalised momentum.

    Reference:
        Zhao, Liu, Larson: On Success and Simplicity: A Second Look at Transferable Targeted
        Attacks (2021), arXiv 2012.11207.

    Deviation: steps of eps / 8 at every budget (authors: of 2/255 at 16/255).
    """


@published(
    transform=ScaledBlocks,
    loss="calibrated",
    steps=900,
    relative_step_size=0.125,
    decay=1.0,
    kernel_size=5,
)
def s4st() -> None:
    """Strong scaling of blocks, made for target labels: 900 steps of eps / 8 with momentum."""


@published(surrogate=SkipGradient, decay=1.0)
def sgm() -> None:
    """Skip gradients, with momentum and steps of eps / 10 (authors: an option, and of 2/255)."""


@published(surrogate=BackwardPropagation, decay=1.0)
def bpa() -> None:
    """Smooth backward propagation, with momentum and steps of eps / 10 (paper: of eps / 5)."""


@published(surrogate=LinearPropagation)
def linbp() -> None:
    """Linear backpropagation (LinBP), without momentum, 10 steps of eps / 10 (authors: 300)."""


@published(surrogate=GhostNetwork, decay=1.0)
def ghost() -> None:
    """Ghost networks, with momentum and steps of eps / 10 (authors: an option, and of eps / 8)."""


@published(surrogate=TokenGradient, decay=1.0)
def tgr() -> None:
    """Token gradient regularisation with momentum."""


@published(
    fixed=["qkv", "mlp", "drop_extremes"],
    surrogate=TokenGradient,
    estimator=PatchOut,
    decay=1.0,
    attention=0.0,
    qkv=1.0,
    mlp=1.0,
    drop_extremes=False,
)
def pna_patchout() -> None:
    """PNA with PatchOut: attention maps are constants on the way back, and some patches are left.

    The former is `tgr` with factors of 0 for attention and 1 for the rest, and with all tokens.
    With momentum, of which the authors have runs without.
    """


@published(fixed=["loss"], objective=FeatureImportance, decay=1.0)
def fia() -> None:
    """Feature importance (FIA), with momentum."""


@published(fixed=["loss"], objective=RandomPatch, decay=1.0)
def rpa() -> None:
    """Random patches (RPA), with momentum."""


@published(fixed=["loss"], objective=NeuronAttribution, decay=1.0)
def naa() -> None:
    """Neuron attribution (NAA), with momentum."""


@published(fixed=["loss"], objective=BlackBoxFeatures, decay=1.0)
def bfa() -> None:
    """Black-box features (BFA), with momentum."""


@published(objective=PerturbationDecay, steps=100, relative_step_size=0.125)
def ilpd() -> None:
    """Intermediate-level perturbation decay (ILPD): 100 steps of eps / 8, without momentum."""


@published(objective=IntermediateLevel)
def ila() -> None:
    """Intermediate level attack (ILA): 10 steps after the 10 of a first attack, without momentum.

    `step_size_255` and `relative_step_size` are those of the second steps; those of the first are
    eps / `first_steps`.
    """


@published(
    transform=DiverseInput,
    objective=CleanFeatureMixup,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    probability=1.0,
    resize_rate=1.137,
    kernel_size=5,
)
def cfm() -> None:
    """Clean feature mixup (CFM), made for target labels, with `mi_di_ti`.

    Deviation: 300 steps of eps / 8 at every budget (authors: 299 of 2/255 at 16/255).
    """
