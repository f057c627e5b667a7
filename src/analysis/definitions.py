"""Definitions of the terms of the report, in its order."""

TERMS = {
    "source, target": (
        "The source is the model whose gradients made the adversarial images; the members of an "
        "ensemble are joined by +. The target is a model that the same images are evaluated on. "
        "White box: the target is the source or a member of it. White boxes are marked *, grey, "
        "hatched or set apart."
    ),
    "budget, eps": (
        "The largest change of any value of an image, in 1/255 of the pixel range. In the L2 norm, "
        "the largest root-mean-square change. Compare attacks within one norm only. Reference "
        "budget: that of the answer, the matrix and the ranking, unless another is chosen."
    ),
    "protocol": (
        "Which images count. all: every image. source_correct, target_correct: images that the "
        "source or the target classifies correctly when clean. joint: images that both classify "
        "correctly. common: the same, and the target must also be correct behind all defences."
    ),
    "defence": (
        "A function between the images and a target, such as JPEG. The clean accuracy of a "
        "defended target is its accuracy behind the defence. Own: the source's network behind a "
        "defence other than the source's; it counts in no mean. Images that a defence abstains on "
        "are in no numerator or denominator."
    ),
    "fooled, correct, k / n": (
        "k of n counted images. Fooled: any wrong class or, for a targeted attack, the target "
        "class; in tables, success. Correct: still the true class; in tables, robust accuracy. "
        "Intervals of rates are Wilson's, 95 %, over images. They do not cover the choice of seed, "
        "training run or data set."
    ),
    "conditional success": (
        "Of the images that source and target classify correctly when clean and on which the "
        "source is fooled at this budget, the share on which the target is fooled. The protocol "
        "does not matter. Empty below 10 such images, and where the source was not evaluated. "
        "Empty for the source's own networks, also behind other defences: nothing transfers to "
        "another network. It is never ranked, tested or averaged over attacks, because its "
        "denominator is an outcome of the attack: each attack is judged on other images."
    ),
    "confidence": (
        "Softmax probability of the predicted class. Initial confidence: confidence on the clean "
        "image. Intervals of means are Wilson's for the sum of confidences, 95 %. They are wide, "
        "because they hold for any values in [0, 1]."
    ),
    "minimum adversarial budget": (
        "The smallest tried budget at which a counted image is misclassified. Some images are "
        "correct again at larger budgets. A smaller budget between those tried may suffice."
    ),
    "galleries": (
        "Dip and recovery: never misclassified; loses at least 5 points of confidence at some "
        "budget and regains at least half of that at a larger one. Bounce back: misclassified, and "
        "correct again at a larger budget. More confident than clean: at the largest budget the "
        "confidence in a wrong class exceeds the initial confidence. Below 1/255: misclassified by "
        "a change that no 8-bit image can hold (L-infinity only)."
    ),
    "rho": (
        "Spearman's rank correlation between initial confidence and minimum adversarial budget. "
        "Images that are never misclassified rank above all budgets. 95 % interval of Bonett and "
        "Wright (2000)."
    ),
    "ranking, mean of sources": (
        "The success of an attack is the mean over targets of each target's mean over the sources "
        "other than itself; a pair has k / n. It is the mean of the printed cells. Its 95 % "
        "interval is Wilson's at the number of images that would vary as much with zeros and ones. "
        "A ranking has the pairs of its most complete attacks. An attack that lacks one is listed "
        "without a rank. Targeted attacks, ensembles and sources behind a defence are ranked "
        "separately. Sources are ranked on the images that a target and every source classify "
        "correctly: a source that is often wrong would count easy images alone. No source has "
        "itself as a target, so sources have different targets. Each rate is therefore taken as a "
        "number of its source plus a number of its target, as close to all rates as possible "
        "(least squares). The value of a source is the mean of these sums over all targets. A sum "
        "also stands for the pair that was not measured, so a value can be below 0 or above "
        "100 %; it is then marked as extrapolated. Values are no averages of the matrix's cells, "
        "which count other images. On one chosen target, sources have plain rates on their common "
        "images."
    ),
    "=, test of two attacks": (
        "=: the first attack, and attacks that do not differ significantly from it. The test gives "
        "random signs to what each image contributes to the difference of two attacks, the same "
        "for all pairs. The largest statistic of all pairs decides (maxT, 1,999 draws, p < 0.05, "
        "from 30 images on). About 5 % of rankings call any two equal attacks unequal, per source "
        "or mean, defence and budget, if the images' differences have a symmetric distribution. "
        "Skewed ones, where one attack gains much on few images and loses little on many, give "
        "10.9 % at 40 images and 5.0 % at 170. Intervals of differences are simultaneous, 95 %, "
        "and contain 0 if the pair is undecided; then they count four whole images more as "
        "different, because few such images say too little. From 30 to 99 images there is a test, "
        "but no text names a winner: a fixed floor against such errors, not a matter of power. A "
        "winner is tested again without each target in turn. If it is not first and significantly "
        "ahead of all others each time, it only leads on average, and the answer "
        "names the targets that it needs."
    ),
    "differences shown": (
        "N images decide differences of this size or more in 80 % of samples, at the median "
        "discordance. Discordance is the mean squared difference of two attacks on an image."
    ),
    "within q candidates": (
        "A candidate is one attack from one source. A unit is an image and a target that counts it "
        "for all its candidates: by default, that classifies it correctly. Candidates whose source "
        "is, contains or is related to the target are skipped. The order is greedy. The images are "
        "in 11 random parts, each judged by the order learned on five others. The share is the "
        "mean over targets. Its 95 % interval is for other images and fixed orders. Unseen target: "
        "orders are learned without the judged target. Best single: the candidate that alone fools "
        "most of the learning images, among those that need at most as many gradients as the q "
        "candidates together."
    ),
    "difference of two rates, excess": (
        "Both rates are of the same images. The interval is Tango's score interval for paired "
        "proportions (1998), 95 %. Excess: the attack's success rate minus that of a control with "
        "the same budget."
    ),
    "rounding": (
        "Another batch size, grid or processor changes the signs of gradients close to zero. Do "
        "not interpret differences of a few images between two runs of an iterative attack."
    ),
    "power spectrum": (
        "Squared magnitude of the Fourier transform, averaged over channels and summed over rings "
        "of equal spatial frequency, as a share of the total. 0.5 cycles per pixel is the finest "
        "pattern along an axis."
    ),
    "low, mid, high": (
        "The part of a perturbation below, between and above two frequencies. It is scaled to the "
        "L2 norm of random-sign noise of the budget, clipped to the pixel range and not rounded. "
        "The control is the same part of that noise at the same norm. Low-passed: the clean images "
        "without frequencies from a cutoff on; borders are mirrored first."
    ),
    "gradient cosine, error consistency": (
        "Gradient cosine: mean cosine of the two models' gradients of the cross-entropy of the "
        "true class with respect to the clean pixels. It has Student's t interval, 95 %, from 10 "
        "images on. Error consistency: Cohen's kappa of being correct on the same clean images, "
        "with its asymptotic interval, 95 %. 0: independent errors; 1: the same errors."
    ),
    "visibility": (
        "Means over adversarial images before any rounding. RMS: root mean square change. PSNR: in "
        "dB, for a pixel range of 1. SSIM (Wang et al. 2004, whole windows of 11 pixels): 1 for "
        "equal images."
    ),
}
"""Definitions by term. A quantity adds a term that is missing here."""
