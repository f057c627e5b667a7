"""What every number of the report means."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "source",
        "The model whose gradients made the adversarial images; of an ensemble, its members are "
        "joined by +.",
    ),
    ("target", "A model that the same adversarial images are evaluated on."),
    ("white box", "The target is the source, or a member of an ensemble that is the source."),
    (
        "budget, eps",
        "The largest change of any value of an image, in units of 1/255 of the pixel range; for "
        "an attack in the L2 norm, the largest root-mean-square change. The L2 ball holds the "
        "L-infinity ball of the same budget and much more, so attacks are compared within one norm "
        "alone. An L-infinity budget below 1 is no change at all in an 8-bit image.",
    ),
    (
        "protocol",
        "Which images are counted: all; source_correct or target_correct, those that the source "
        "or the target classifies correctly when clean; joint, those that both do. On the "
        "diagonal joint and source_correct are the same.",
    ),
    ("k / n = p %", "Of n images counted, k; p is their share."),
    (
        "robust accuracy, success rate",
        "Share of the images counted that the target still classifies correctly; and share on "
        "which the attack reached what it wants: any wrong class, or the class aimed for.",
    ),
    (
        "interval of a rate",
        "Wilson's score interval, 95 %, over images; it does not cover the choice of seed, "
        "training run or data set.",
    ),
    (
        "confidence, true confidence",
        "Softmax probability of the predicted and of the true class. Initial confidence: on the "
        "clean image.",
    ),
    (
        "minimum adversarial budget",
        "A counted image is no longer classified correctly; and the smallest tried budget at "
        "which that is so, refined by bisection where the job did that. It is one crossing: some "
        "images are right again at larger budgets, and smaller ones between those tried may flip.",
    ),
    (
        "dip and recovery",
        "Never flips within the grid, loses at least 5 percentage points of confidence at some "
        "budget, and regains at least half of what it lost at a larger one.",
    ),
    ("bounce back", "Flips, and is classified correctly again at a larger budget."),
    (
        "more confident in a wrong class",
        "At some budget (or, where it says ends, at the largest) the target is more confident in "
        "a wrong class than it was in the true class of the clean image.",
    ),
    (
        "below 1/255",
        "Flips at a budget that no 8-bit image can hold: told of attacks in the L-infinity norm "
        "alone.",
    ),
    (
        "area under a curve",
        "The curve's mean over the budgets from 0 to the largest, by trapezoids.",
    ),
    (
        "interval of an area or of a mean confidence",
        "Gaffke's (2005), 95 %, over images: for means of values between 0 and 1, however skewed. "
        "Not given for areas of fewer than 30 images and mean confidences of fewer than 10.",
    ),
    (
        "McNemar, Holm",
        "Two-sided exact McNemar test of two successes on the same images; p-values of one kind "
        "of comparison are corrected together by Holm's method.",
    ),
    (
        "difference of two rates",
        "On the same images, with Tango's score interval for paired proportions (1998), 95 %.",
    ),
    (
        "rounding",
        "Another order of operations (another batch, grid or processor) turns signs of gradients "
        "that nearly vanish. In one trial BIM so fooled 36 to 42 of the same 113 images: between "
        "two runs of an iterative attack, a difference of as few images is none.",
    ),
    (
        "rho",
        "Spearman's rank correlation between initial confidence and minimum adversarial budget, "
        "images that never flip ranked above all budgets; 95 % interval of Bonett and Wright "
        "(2000).",
    ),
    (
        "power spectrum",
        "Squared magnitude of the two-dimensional Fourier transform over the number of pixels, "
        "averaged over channels and over rings of equal spatial frequency, in cycles per pixel; "
        "0.5 is the finest pattern along an axis.",
    ),
    (
        "low, mid, high",
        "A perturbation's part below, between and above the two limits that the figure names, cut "
        "out in the Fourier domain and scaled to the same largest change, or to the L2 norm of "
        "the whole perturbation; then clipped to the pixel range. Not rounded to 8 bits. Its "
        "control is the same part of random-sign noise at the same strength; excess is the "
        "difference of the two success rates.",
    ),
    (
        "gradient cosine",
        "Cosine between the gradients of the cross-entropy of the true class with respect to the "
        "clean image's pixels, of source and target; mean over the images counted.",
    ),
    (
        "agreement of errors, kappa",
        "Cohen's kappa of being right, of two models on the same clean images: 0 for independent "
        "errors, 1 for the same ones.",
    ),
)
