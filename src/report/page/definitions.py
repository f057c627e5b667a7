"""Definitions of every number of the report."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "source, target",
        "The model that the adversarial images were crafted on (members of an ensemble are joined"
        " by +), and a model that the same images are evaluated on. White box, marked *, framed, "
        "dashed or set apart: the target is the source or a member of it.",
    ),
    (
        "budget, eps",
        "The largest change of any value of an image in 1/255 of the pixel range; in the L2 norm, "
        "the largest root-mean-square change. Attacks are compared within one norm alone.",
    ),
    (
        "protocol",
        "The images counted: all; source_correct or target_correct, those that the source or "
        "the target classifies correctly when clean; joint, those that both do; common, those "
        "that source and target do, the latter behind all defences too.",
    ),
    (
        "defence",
        "A function between the images and a target, such as JPEG. A target's clean accuracy is "
        "that behind it. Own: the source's network behind another defence than the source's, which "
        "counts in no mean. Images that a defence abstains on are in no numerator or denominator.",
    ),
    (
        "k / n, robust accuracy, success rate",
        "Of n images counted, k. Robust accuracy: still classified correctly. Success: any wrong "
        "class or, of a targeted attack, the target class. Intervals of rates are Wilson's, 95 %, "
        "over images; they do not cover the choice of seed, training run or data set.",
    ),
    (
        "confidence",
        "Softmax probability of the predicted class; initial confidence: on the clean image. "
        "Intervals of means are Wilson's of the sum of confidences, 95 %: wide ones, which hold "
        "for any values in [0, 1].",
    ),
    (
        "minimum adversarial budget",
        "The smallest budget at which a counted image is misclassified: of those tried, refined by "
        "bisection where the job did that. Some images are correct again at larger budgets, and "
        "smaller ones between those tried may suffice.",
    ),
    (
        "galleries",
        "Dip and recovery: never misclassified, loses at least 5 points of confidence at some "
        "budget and regains at least half of that at a larger one. Bounce back: misclassified, and "
        "correct again at a larger budget. More confident than clean: at the largest budget the "
        "confidence in a wrong class exceeds the initial one. Below 1/255: misclassified by a "
        "change that no 8-bit image can hold (L-infinity alone).",
    ),
    (
        "rho",
        "Spearman's rank correlation of initial confidence and minimum adversarial budget, images "
        "that are never misclassified ranked above all budgets; 95 % interval of Bonett and Wright "
        "(2000).",
    ),
    (
        "ranking, mean of sources",
        "Attacks by the mean over images of an image's mean success on models other than the "
        "source, with Wilson's 95 % interval at the number of images that would vary as much with "
        "scores 0 and 1. =: the first, and those that cannot be told from it. For the test of two "
        "attacks the differences on the images counted for both get random signs, the same for all "
        "pairs; the largest statistic of all pairs decides (maxT, 1,999 draws, p < 0.05, from 30 "
        "images on). So any two of equal attacks are called unequal in at most 5 % of rankings: "
        "per source or mean, defence and budget. Intervals of differences are simultaneous, 95 %, "
        "and hold 0 where the pair is undecided. Targeted attacks, ensembles, and sources behind a "
        "defence are ranked apart. Sources are compared on targets that are neither of the two, "
        "and ranked by the mean difference from the others. A cell's mean of sources is over those "
        "that are no white box for its target; its counts are their sums.",
    ),
    (
        "differences shown, repetition",
        "N images show differences from a size on that they decide in 80 % of samples, at the "
        "median discordance: the mean squared difference of two attacks on an image. Repetition: "
        "the mean correlation of two attacks' scores given an image's mean over the others; "
        "A attacks with a correlation of rho count as A / (1 + (A - 1) rho).",
    ),
    (
        "strongest attacker",
        "Per set: the one of A attackers with most successes; the lower end of its exact interval "
        "(Clopper and Pearson) is at the level 1 - 0.05 / A, since the same images chose it. Per "
        "image: any of them.",
    ),
    (
        "difference of two rates, excess",
        "On the same images, with Tango's score interval for paired proportions (1998), 95 %. p: "
        "two-sided exact McNemar test, corrected by Holm within one kind of comparison of jobs on "
        "the same images, with one norm, budget and protocol. Excess is the attack's success rate "
        "minus that of a control of the same budget.",
    ),
    (
        "rounding",
        "Another batch, grid or processor turns signs of gradients that nearly vanish: between two "
        "runs of an iterative attack, do not interpret differences of a few images.",
    ),
    (
        "power spectrum",
        "Squared magnitude of the Fourier transform, averaged over channels, summed over rings of "
        "equal spatial frequency, as a share of the whole; 0.5 cycles per pixel is the finest "
        "pattern along an axis.",
    ),
    (
        "low, mid, high",
        "The part of a perturbation below, between and above two frequencies, scaled to the L2 "
        "norm of random-sign noise of the budget, clipped to the pixel range and not rounded. Its "
        "control is the same part of that noise at the same norm. Low-passed: the clean images "
        "without their frequencies from a cutoff on, mirrored at the borders first.",
    ),
    (
        "gradient cosine, error consistency",
        "Mean cosine of the two models' gradients of the cross-entropy of the true class with "
        "respect to the clean pixels, with Student's t interval, 95 %, from 10 images on; and "
        "Cohen's kappa of being correct on the same clean images, with its asymptotic interval, "
        "95 %: 0 for independent errors, 1 for the same ones.",
    ),
    (
        "visibility",
        "Of the adversarial images before any rounding: RMS, the root mean square change; PSNR in "
        "dB, for a pixel range of 1; and SSIM (Wang et al. 2004, whole windows of 11 pixels), 1 "
        "for equal images; means over images.",
    ),
)
