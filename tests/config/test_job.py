"""What a config may not ask for, and what it is told."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import src.main
from src.config.attack_file import attack_file
from src.config.read import check_models, read_job


def job(*overrides: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF)):
        words = ["dataset=photos", *overrides]
        config = compose("config", words)
        hydra = compose("config", words, return_hydra_config=True).hydra
        return read_job(config, attack_file(config, hydra))


def test_a_job_holds_what_the_config_says():
    read = job("attack=bim", "source=resnet50", "targets=[vgg16]", "epsilon.grid=[8,0,0.25]")
    assert (read.source, read.targets, read.budgets) == ("resnet50", ("vgg16",), (0.25, 8.0))
    assert read.models == ("resnet50", "vgg16")
    assert read.attack.settings["steps"] == 10
    assert read.name == "bim resnet50"


def test_targets_are_the_studys_three_and_the_source():
    assert job().targets == ("vgg16", "resnet50", "inception")
    assert job("source=resnet18").targets == ("vgg16", "resnet50", "inception", "resnet18")


def test_the_headline_budget_is_one_that_is_run():
    assert job().reference == 8
    assert job("epsilon.grid=[1,2]").reference == 2
    assert job("epsilon.reference=4").reference == 4


def test_budgets_that_8_bits_cannot_hold_are_run():
    assert job("epsilon.grid=[0,0.25,0.5]").budgets == (0.25, 0.5)
    assert job("epsilon.grid=[0.01,0.1]").budgets == (0.01, 0.1)


def test_zero_is_always_included_and_never_attacked():
    assert job("epsilon.grid=[4]").budgets == (4.0,)


REFUSED = [
    ("source=vgg61", "source names 'vgg61', which is not among the models: .*vgg16"),
    ("targets=[vgg16,nonet]", "targets names 'nonet', which is not among the models"),
    ("targets=[]", "targets is empty"),
    ("targets=[vgg16,resnet50,vgg16]", "targets names vgg16 more than once"),
    ("source=[vgg16,nonet]", "source names 'nonet', which is not among the models"),
    ("source=[vgg16,vgg16]", "source names vgg16 more than once"),
    ("source=[]", "source is empty"),
    ("ensemble=votes", "ensemble=votes is not one of logits, probabilities, loss"),
    ("controls=perhaps", "controls=perhaps is not one of True, False"),
    ("storage=int4", "storage=int4 is not one of float32, uint8"),
    ("variants=[gif]", "'gif' is not one of float32, uint8, png"),
    ("variants=[png,png]", "variants names png more than once"),
    ("trainer.gradient_batch=0", "trainer.gradient_batch must be a whole number of at least 1"),
    ("epsilon.grid=[0,-1]", "epsilon.grid holds -1; budgets are numbers from 0 to 255"),
    ("epsilon.grid=[nan]", "epsilon.grid holds nan"),
    ("epsilon.grid=[256]", "epsilon.grid holds 256"),
    ("epsilon.grid=[eight]", "epsilon.grid holds eight"),
    ("epsilon.grid=[0]", "no budget above 0"),
    ("epsilon.grid=[0.03]", r"epsilon.grid=0.03 is in units of 1/255: did you mean 8\?"),
    ("epsilon.grid=[0,0.0314,0.001]", r"did you mean 0.255, 8\?"),
    ("epsilon.grid=[]", "no budget above 0"),
    ("epsilon.grid=[4,4]", "epsilon.grid names 4 more than once"),
    ("attack.steps=0", "attack.steps must be a whole number of at least 1, not 0"),
    ("attack.step_size_255=-1", r"attack.step_size_255 must be a number in \(0, 255\], not -1"),
    ("attack.step_size_255=17", "step_size_255=17 is longer than the largest budget, 16"),
    ("attack.loss=hinge", "attack.loss=hinge is not one of cross_entropy, logit, margin, dlr"),
    ("attack.norm=l1", "attack.norm=l1 is not one of linf, l2"),
    ("attack.target_label=most", "attack.target_label=most is not one of null, data"),
    ("+attack.targeted=true", "attack.targeted is filled in by the program"),
    ("+attack.stepz=3", r"attack=bim has no setting stepz; its settings are steps, .*bim\.yaml"),
    ("+attack.nrom=l2", r"attack=bim has no setting nrom; .*bim\.yaml\). Did you mean norm\?"),
    ("+attack.decay=1", "attack=bim has no setting decay"),  # which would make it mi
    ("attack=fgsm ++attack.steps=20", r"attack=fgsm has no setting steps; .*attack/fgsm\.yaml"),
    ("attack.name=pgd", r"attack.name=pgd must be bim: .*attack/bim\.yaml"),
    ("dataset.name='[/x]'", r"dataset.name must be a name of letters, .* not '\[/x\]'"),
    ("dataset.name=../../evil", "dataset.name must be a name of letters"),
    ("dataset.name=..", "dataset.name must be a name of letters"),
    (f"dataset.name={'x' * 101}", "dataset.name must be a name of letters"),
    ("n_images=0", "n_images must be a whole number of at least 1, not 0"),
    ("n_images=1.5", "n_images must be a whole number of at least 1, not 1.5"),
    ("seed=-1", "seed must be a whole number of at least 0, not -1"),
    ("protocol=some", "protocol=some is not one of all, source_correct"),
    ("trainer.batch_size=0", "trainer.batch_size must be a whole number of at least 1"),
    ("training.epochs=0", "training.epochs must be a whole number of at least 1, not 0"),
    ("training.learning_rate=0", r"training.learning_rate must be a number in \(0, 1000\], not 0"),
    ("training.learning_rate=fast", "training.learning_rate must be a number in"),
    ("training.crop_padding=1.5", "training.crop_padding must be a whole number"),
    ("training.precision=16", "training.precision must be one of auto, 32-true"),
    ("+training.foo=1", "foo"),
    ("targets=5", "targets names 5, which is not among the models"),
    ("epsilon.grid=null", "epsilon.grid holds None"),
    ("epsilon.reference=5", "epsilon.reference=5 is not among the budgets 1, 2, 4, 8, 12, 16"),
    ("epsilon.reference=eight", "epsilon.reference=eight is not among"),
    ("clean_accuracy_check.tolerance=abc", "clean_accuracy_check.tolerance must be a number in"),
    ("trainer.precision=64-true", "trainer.precision=64-true is not one of 32-true, bf16-mixed"),
    ("trainer.strategy=ddp_spawn", "trainer.strategy=ddp_spawn is not one of auto, ddp"),
    ("trainer.num_workers=-1", "trainer.num_workers must be a whole number of at least 0"),
    ("model.vgg16.expected_accuracy=abc", "model.vgg16.expected_accuracy must be a number"),
    ("model.vgg16.weights=gone.pt", "model.vgg16.weights=gone.pt is not a file"),
    (
        "clean_accuracy_check.action=shrug",
        "clean_accuracy_check.action=shrug is neither stop nor warn",
    ),
    ("attack._target_=src.attacks.gone", "_target_ src.attacks.gone cannot be imported"),
    (
        "diagnostics.bisection=21",
        "diagnostics.bisection must be a whole number from 0 to 20, not 21",
    ),
    (
        "diagnostics.bisection=-1",
        "diagnostics.bisection must be a whole number from 0 to 20, not -1",
    ),
    (
        "diagnostics.bisection=2.5",
        "diagnostics.bisection must be a whole number from 0 to 20, not 2.5",
    ),
    (
        "diagnostics.bisection=true",
        "diagnostics.bisection must be a whole number from 0 to 20, not True",
    ),
    ("diagnostics.spectra=some", "diagnostics.spectra=some is not one of True, False"),
    ("diagnostics.filters=null", "diagnostics.filters=None is not one of True, False"),
    ("diagnostics.similarity=2", "diagnostics.similarity=2 is not one of True, False"),
    (
        "diagnostics.bands=[0.1]",
        r"diagnostics.bands must be two rising numbers in \(0, 0.5\], not \[0.1",
    ),
    ("diagnostics.bands=[0.2,0.1]", r"diagnostics.bands must be two rising numbers in \(0, 0.5\]"),
    ("diagnostics.bands=[0.2,0.2]", "diagnostics.bands must be two rising numbers"),
    ("diagnostics.bands=[0,0.2]", "diagnostics.bands must be two rising numbers"),
    ("diagnostics.bands=[0.1,0.51]", "diagnostics.bands must be two rising numbers"),
    ("diagnostics.bands=[0.1,0.2,0.3]", "diagnostics.bands must be two rising numbers"),
    (
        "diagnostics.bands=0.2",
        r"diagnostics.bands must be two rising numbers in \(0, 0.5\], not 0.2",
    ),
    ("diagnostics.bands=[0.1,high]", "diagnostics.bands must be two rising numbers"),
    (
        "diagnostics.cutoffs=[]",
        r"diagnostics.cutoffs must be one or more rising numbers in \(0, 0.71\]",
    ),
    ("diagnostics.cutoffs=[0.2,0.1]", "diagnostics.cutoffs must be one or more rising numbers"),
    ("diagnostics.cutoffs=[0.72]", "diagnostics.cutoffs must be one or more rising numbers"),
    ("diagnostics.cutoffs=[nan]", "diagnostics.cutoffs must be one or more rising numbers"),
    ("diagnostics.cutoffs=[true]", "diagnostics.cutoffs must be one or more rising numbers"),
    ("+diagnostics.spectrum=true", "diagnostics in the config: .*spectrum"),
    ("attack._target_=math.sqrt", "attack=bim: it has no key attack.steps"),
]


@pytest.mark.parametrize(("override", "message"), REFUSED, ids=[pair[0] for pair in REFUSED])
def test_refused_in_one_sentence(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        job("attack=bim", *override.split(" "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "a b", "[a]", "x" * 101, ".."])
def test_a_models_name_can_be_that_of_a_folder(name):
    with pytest.raises(ValueError, match="source must be a name of letters"):
        check_models(OmegaConf.create({"model": {name: {}}}), [name], [name])


def returns_one_image(model, images, labels, eps, **settings):
    return images


def without_aim(model, images, labels, eps, *, norm, loss):
    return images.expand(len(eps), *images.shape)


def test_an_attack_that_returns_something_else_is_refused(monkeypatch):
    monkeypatch.setattr("src.attacks.fgsm", returns_one_image)
    with pytest.raises(ValueError, match=r"must return a tensor \(6, 2, 3, 64, 64\)"):
        job()


def test_an_attack_that_cannot_be_aimed_is_not(monkeypatch):
    monkeypatch.setattr("src.attacks.fgsm", without_aim)
    job()
    with pytest.raises(ValueError, match="its function has no argument `targeted`"):
        job("attack.target_label=next")


def test_probes_are_off_unless_asked_for():
    basic, full = job().analysis, job("diagnostics=full").analysis
    assert (basic.bisection, basic.spectra, basic.filters, basic.similarity) == (0, *[False] * 3)
    assert (full.bisection, full.spectra, full.filters, full.similarity) == (6, *[True] * 3)
    assert basic.bands == full.bands == (0.125, 0.25)
    assert basic.cutoffs == full.cutoffs == (0.0625, 0.125, 0.1875, 0.25, 0.375)
    one = job("diagnostics.bisection=20", "diagnostics.cutoffs=[0.5,0.71]").analysis
    assert one.bisection == 20 and not one.filters and one.cutoffs == (0.5, 0.71)


def test_an_ensemble_is_one_source():
    read = job("source=[vgg16,resnet18]", "ensemble=loss")
    assert read.source == "vgg16+resnet18" and read.sources == ("vgg16", "resnet18")
    assert read.models == ("vgg16", "resnet18", "resnet50", "inception")
    assert read.targets == ("vgg16", "resnet50", "inception", "resnet18")


def test_saved_images_are_shown_in_8_bits():
    assert job().forms.headline == "float32"
    assert job("save_adversarial=true").forms.headline == "uint8"
    assert job("storage=uint8").forms.names == ("uint8", "float32")  # to see what rounding does
    forms = job("save_adversarial=true", "storage=float32", "variants=[uint8,jpeg75]").forms
    assert forms.names == ("float32", "uint8", "jpeg75")
