"""Experiments of source report D: every row trains as the report's code did, or as its text means, epoch by epoch."""

import dataclasses
import math

import numpy as np
import pytest

from experiments import (
    pets_batchnorm,
    pets_binary,
    pets_factors,
    pets_gradual,
    pets_imbalance,
    pets_last_l,
    pets_resnet50,
)
from tl_keras.backbones import build_classifier, stage_layers
from tl_keras.data import get_augmentation, make_splits
from tl_keras.data.examples import DatasetSource, ImageStore, make_examples
from tl_keras.errors import ConfigError, MissingError
from tl_keras.runs.experiment import PAPER, QUICK, SMOKE, ExperimentOptions, available_rows, run_experiment
from tl_keras.runs.origins import CHOSEN, SAID, SHOWN
from tl_keras.runs.resolve import resolve
from tl_keras.strategies.freezing import runs_in_training_mode, trained_variables, updated_paths
from tl_keras.training.schedules import Schedule
from tl_keras.weights import get_weights

MODULES = (pets_binary, pets_last_l, pets_factors, pets_gradual, pets_imbalance, pets_resnet50, pets_batchnorm)
EXPERIMENTS = {module.EXPERIMENT.name: module.EXPERIMENT for module in MODULES}
UPDATES = 92  # updates in an epoch of 2,944 images in batches of 32

# Everything below is read off the source report by hand.
HEAD, L4, L34, L234, L1234 = (("head",), ("layer4", "head"), ("layer3", "layer4", "head"), ("layer2", "layer3", "layer4", "head"),
                              ("layer1", "layer2", "layer3", "layer4", "head"))  # fmt: skip
ALL = ("stem", *L1234)
GRADUAL = [L4] * 2 + [L34] * 2 + [L234] * 2 + [L1234] * 4
STEP, CONSTANT = [1.0] * 7 + [0.1] * 3, [1.0] * 10

FACTORS = ("baseline", "higher rate", "L2 0.01", "augmentation", "meant: rate 0.01", "meant: augmentation")
GRADUAL_FACTORS = (*FACTORS, "different rates", "meant: rate 0.01 but head 0.001", "meant: rates by layer", "meant: optimizer kept")
ADAMW_CHANGES = (
    *("AdamW rate 0.0001", "AdamW falling rates", "AdamW clipping", "AdamW warm-up"),
    *("AdamW batch statistics", "AdamW fixed statistics"),
)

# Experiment -> label -> trained stages of a ResNet, in all ten epochs or one by one.
STAGES = {
    "pets_binary": {"cat or dog": HEAD, "meant: two class scores": HEAD},
    "pets_last_l": {"l = 1": HEAD, "l = 2": L4, "l = 3": L34, "l = 4": L234, "l = 5": L1234, "meant: l = 5": ALL},
    "pets_factors": dict.fromkeys(FACTORS, L34),
    "pets_gradual": dict.fromkeys(GRADUAL_FACTORS, GRADUAL),
    "pets_imbalance": {
        **{"l = 1": HEAD, "l = 2": L4, "l = 3": L34, "l = 4": L234, "l = 5": L1234},
        **dict.fromkeys(("weighted cross-entropy", "cat majority", "over-sampling", "focal loss"), L34),
        **dict.fromkeys(("meant: dog majority", "meant: cat majority"), L34),
    },
    "pets_resnet50": {
        **{
            f"{name} l = {number}": stages
            for name in ("SGD", "SGD with L2", "AdamW")
            for number, stages in ((0, HEAD), (1, HEAD), (3, L34))
        },
        **dict.fromkeys(ADAMW_CHANGES, L34),
        **{f"meant: {name} l = {number}": stages for name in ("SGD", "SGD with L2", "AdamW") for number, stages in ((1, L4), (3, L234))},
        "meant: default weights SGD l = 0": HEAD,
    },
    "pets_batchnorm": {
        **dict.fromkeys(("final layer", "final layer and batch norm", "meant: final layer with SGD"), HEAD),
        **dict.fromkeys(("meant: batch norm with SGD", "meant: batch norm with Adam"), ALL),
    },
}

# Settings that the report does not have, in its baselines.
OPEN = {"split": "stratified", "last_batch": "keep", "precision": "auto", "stage_learning_rates": "", "seed": 0}

# Settings of every row with their origins. Everything that is not here is chosen.
COMMON = {
    "dataset": ("oxford_iiit_pet", SAID), "label": ("label", SAID), "fraction": (1.0, SAID), "validation_fraction": (0.2, SAID),
    "image_size": (0, SAID), "crop_fraction": (0.0, SAID), "interpolation": ("weights", SAID), "normalization": ("weights", SAID),
    "augmentation": ("none", SAID), "backbone": ("resnet18", SAID), "weights": ("imagenet", SAID), "head": ("linear", SHOWN),
    "strategy": (None, SHOWN),  # STAGES holds its value
    "frozen_mode": ("training", SHOWN), "batch_norm": ("train", SHOWN), "batch_norm_momentum": (0.9, SHOWN),
    "eval_mode_after": (1, SHOWN), "loss": ("cross_entropy", SAID), "optimizer": ("sgd", SAID), "learning_rate": (1e-3, SAID),
    "momentum": (0.9, SAID), "nesterov": (True, SAID), "weight_decay": (0.0, SAID), "l2": (0.0, SAID), "epochs": (10, SAID),
    "schedule": ("step:every=7,factor=0.1", SHOWN), "schedule_interval": ("epoch", SHOWN), "batch_size": (32, SHOWN),
    "selection": ("last", SHOWN),
}  # fmt: skip
RESIZED_CROP = "random_resized_crop:scale=0.08-1,ratio=0.75-1.3333"
FLIP_ROTATE_JITTER = "flip+rotate:degrees=20,interpolation=nearest+jitter:brightness=0.2,contrast=0.2,saturation=0.2"
AS_RUN_AUGMENTATION = {"augmentation": (f"{RESIZED_CROP}+{FLIP_ROTATE_JITTER}", SHOWN)}
MEANT_AUGMENTATION = {"augmentation": (f"resize+{FLIP_ROTATE_JITTER}", SAID)}
L2, RATE = {"l2": (0.01, SAID)}, {"learning_rate": (0.01, SAID)}
ADAM = {"optimizer": ("adam", SHOWN), "nesterov": (False, SHOWN)}
ADAMW = {"optimizer": ("adamw", SAID), "weight_decay": (0.001, SAID), "nesterov": (False, SAID)}
SAID_STRATEGY, CHOSEN_STRATEGY = {"strategy": (None, SAID)}, {"strategy": (None, CHOSEN)}
FIRST_REPEAT, SECOND_REPEAT = {"seed": (1000, CHOSEN)}, {"seed": (2000, CHOSEN)}
OPTIMIZERS = {"SGD": {}, "SGD with L2": L2, "AdamW": ADAMW}
TRUE_MAJORITIES = {
    f"meant: {majority} majority": {"split": ("stratified", SAID), "keep": (f"{minority}:0.25", SAID)}
    for majority, minority in (("dog", "cat"), ("cat", "dog"))
}

# Experiment -> (settings of all its rows, label -> settings of that row), where they differ from COMMON.
SETTINGS = {
    "pets_binary": (
        {**ADAM, **SAID_STRATEGY, "label": ("species", SAID), "schedule": ("constant", SHOWN), "head": ("one_logit", SHOWN)},
        {"meant: two class scores": {"head": ("linear", SAID)}},
    ),
    "pets_last_l": ({}, {"meant: l = 5": SAID_STRATEGY}),
    "pets_factors": (
        {},
        {
            **{"higher rate": {"learning_rate": (0.005, SHOWN)}, "L2 0.01": L2, "augmentation": AS_RUN_AUGMENTATION},
            **{"meant: rate 0.01": RATE, "meant: augmentation": MEANT_AUGMENTATION},
        },
    ),
    "pets_gradual": (
        {"schedule": ("constant", SHOWN)},
        {
            **{"higher rate": FIRST_REPEAT, "L2 0.01": L2, "augmentation": AS_RUN_AUGMENTATION, "different rates": SECOND_REPEAT},
            **{"meant: rate 0.01": RATE, "meant: augmentation": MEANT_AUGMENTATION, "meant: optimizer kept": CHOSEN_STRATEGY},
            "meant: rate 0.01 but head 0.001": {"stage_learning_rates": ("head=0.001,*=0.01", SHOWN)},
            "meant: rates by layer": {"stage_learning_rates": ("head=0.001,layer4=0.01,layer3=0.001,layer2=0.0001,layer1=1e-05", SAID)},
        },
    ),
    "pets_imbalance": (
        {
            "split": ("streaming", SHOWN),
            "keep": (pets_imbalance.DOG_MAJORITY, SHOWN),
            "class_weights": ("none", SAID),
        },
        {
            "weighted cross-entropy": {"class_weights": ("balanced", SAID)},
            "cat majority": {"keep": (pets_imbalance.CAT_MAJORITY, SHOWN)},
            "over-sampling": {"sampling": ("balanced", CHOSEN)},
            "focal loss": {"loss": ("focal", CHOSEN)},
            **TRUE_MAJORITIES,
        },
    ),
    "pets_resnet50": (
        {"backbone": ("resnet50_torch", SAID), "weights": ("imagenet_v1", SHOWN)},
        {
            **{
                f"{name} l = {number}": {**optimizer, **(FIRST_REPEAT if number == 1 else {})}
                for name, optimizer in OPTIMIZERS.items()
                for number in (0, 1, 3)
            },
            **{
                f"meant: {name} l = {number}": {**optimizer, **SAID_STRATEGY} for name, optimizer in OPTIMIZERS.items() for number in (1, 3)
            },
            "AdamW rate 0.0001": {**ADAMW, "learning_rate": (1e-4, CHOSEN)},
            "AdamW falling rates": {**ADAMW, "stage_learning_rates": ("head=0.001,layer4=0.0003,layer3=9e-05", CHOSEN)},
            "AdamW clipping": {**ADAMW, "clip_norm": (0.1, CHOSEN)},
            "AdamW warm-up": {**ADAMW, "warmup_epochs": (2.0, CHOSEN)},
            "AdamW batch statistics": {**ADAMW, "eval_mode_after": (-1, CHOSEN)},
            "AdamW fixed statistics": {**ADAMW, "eval_mode_after": (0, CHOSEN)},
            "meant: default weights SGD l = 0": {**SAID_STRATEGY, "weights": ("imagenet", SAID)},
        },
    ),
    "pets_batchnorm": (
        ADAM,
        {
            "final layer": SAID_STRATEGY,
            "final layer and batch norm": FIRST_REPEAT,
            "meant: final layer with SGD": {**SAID_STRATEGY, "optimizer": ("sgd", SAID), "nesterov": (True, SAID)},
            "meant: batch norm with SGD": {**SAID_STRATEGY, "optimizer": ("sgd", SAID), "nesterov": (True, SAID)},
            "meant: batch norm with Adam": SAID_STRATEGY,
        },
    ),
}

# Groups of rows that are one run with other seeds.
REPEATED = {
    "pets_gradual": {("baseline", "higher rate", "different rates")},
    "pets_batchnorm": {("final layer", "final layer and batch norm")},
    "pets_resnet50": {(f"{name} l = 0", f"{name} l = 1") for name in OPTIMIZERS},
}


def rows(name, profile=PAPER, **overrides):
    """Return label -> row of an experiment."""
    return {row.label: row for row in EXPERIMENTS[name].configure(overrides, profile)}


def phases(row):
    """Return the phase of each epoch."""
    return [phase for phase in resolve(row.config).phases for _ in range(phase.epochs)]


def trained(row):
    """Return the trained stages of each epoch, in order."""
    return [tuple(phase.trainable) for phase in phases(row)]


def factors(row):
    """Return the factor on the learning rate in each epoch, which is the same at its first and its last update."""
    schedule = Schedule(row.config.train, UPDATES)
    first, last = ([schedule.factor(epoch * UPDATES + update) for epoch in range(row.config.train.epochs)] for update in (0, UPDATES - 1))
    assert first == last
    return pytest.approx(first)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_trained_stages_of_every_epoch(name):
    expected = {label: stages if isinstance(stages, list) else [stages] * 10 for label, stages in STAGES[name].items()}
    assert {label: trained(row) for label, row in rows(name).items()} == expected


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_every_row_with_their_origins(name):
    common, by_label = SETTINGS[name]
    experiment = EXPERIMENTS[name]
    table = list(rows(name).values())
    assert by_label.keys() <= {row.label for row in table}
    for row, settings in zip(table, experiment.settings_of(table), strict=True):
        settings = {**settings, "strategy": (None, settings["strategy"][1])}
        expected = {**COMMON, **common, **by_label.get(row.label, {})}
        assert {setting: settings[setting] for setting in expected} == expected, row.label
        others = {setting: pair for setting, pair in settings.items() if setting not in expected}
        assert {origin for _, origin in others.values()} <= {CHOSEN}, row.label
        assert row.label != "baseline" or {setting: value for setting, (value, _) in others.items()}.items() <= OPEN.items()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_learning_rate_falls_after_epoch_7_where_the_code_has_a_schedule(name):
    expected = CONSTANT if name in ("pets_binary", "pets_gradual") else STEP
    assert all(factors(row) == expected for label, row in rows(name).items() if label != "AdamW warm-up")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_evaluation_mode_from_epoch_2_on(name):
    switches = {"AdamW batch statistics": [False] * 10, "AdamW fixed statistics": [True] * 10}
    for label, row in rows(name).items():
        assert [phase.eval_mode for phase in phases(row)] == switches.get(label, [False] + [True] * 9)


@pytest.fixture(scope="module")
def resnet18():
    return stage_layers(build_classifier("resnet18", 37, image_size=32), "resnet18")


def test_batch_norm_runs_on_batches_in_epoch_1_alone_and_its_trained_scale_goes_on_training(resnet18):
    first, *later = phases(rows("pets_last_l")["l = 3"])
    norms = [(layer, stage) for stage, layers in resnet18.items() for layer in layers if hasattr(layer, "moving_mean")]
    assert len(norms) == 20
    assert all(runs_in_training_mode(layer, stage, first) for layer, stage in norms)
    assert not any(runs_in_training_mode(layer, stage, phase) for layer, stage in norms for phase in later)
    scales = {layer.gamma.path for layer, stage in norms if stage in ("layer3", "layer4")}
    assert len(scales) == 10
    assert all(scales <= {weight.path for weight in trained_variables(resnet18, phase)} for phase in (first, *later))
    assert not any("moving" in path for phase in later for path in updated_paths(resnet18, phase))


def test_batch_norm_is_trained_in_the_rows_that_mean_it(resnet18):
    table = rows("pets_batchnorm")
    num_trained = {label: len(trained_variables(resnet18, phases(row)[-1])) for label, row in table.items()}
    assert num_trained == {label: 42 if "meant: batch norm" in label else 2 for label in table}  # 20 layers, and the head


@pytest.mark.parametrize(("label", "reset"), [("baseline", "epoch"), ("different rates", "epoch"), ("meant: optimizer kept", "never")])
def test_optimizer_of_gradual_unfreezing_is_new_in_each_epoch(label, reset):
    assert {phase.reset_optimizer for phase in phases(rows("pets_gradual")[label])} == {reset}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("baseline", {"head": 1e-3, "layer4": 1e-3, "layer3": 1e-3, "layer2": 1e-3, "layer1": 1e-3}),
        ("different rates", {"head": 1e-3, "layer4": 1e-3, "layer3": 1e-3, "layer2": 1e-3, "layer1": 1e-3}),
        ("meant: rate 0.01", {"head": 1e-2, "layer4": 1e-2, "layer3": 1e-2, "layer2": 1e-2, "layer1": 1e-2}),
        ("meant: rate 0.01 but head 0.001", {"head": 1e-3, "layer4": 1e-2, "layer3": 1e-2, "layer2": 1e-2, "layer1": 1e-2}),
        ("meant: rates by layer", {"head": 1e-3, "layer4": 1e-2, "layer3": 1e-3, "layer2": 1e-4, "layer1": 1e-5}),
    ],
)
def test_learning_rates_of_gradual_unfreezing(label, expected):
    row = rows("pets_gradual")[label]
    for phase in phases(row):
        rates = {stage: row.config.train.learning_rate * phase.lr_multipliers.get(stage, 1.0) for stage in phase.trainable}
        assert rates == pytest.approx({stage: expected[stage] for stage in phase.trainable})


@pytest.mark.parametrize("name", ["pets_factors", "pets_gradual"])
def test_steps_of_the_augmentation(name):
    as_run, meant = (
        [(step.apply.__name__, dict(step.values)) for step in get_augmentation(rows(name)[label].config.data.augmentation).steps]
        for label in ("augmentation", "meant: augmentation")
    )
    after_the_resize = [
        ("random_flip", {}),
        ("random_rotation", {"degrees": 20.0, "interpolation": "nearest"}),
        ("random_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
    ]
    assert as_run == [("random_resized_crop", {"scale": (0.08, 1.0), "ratio": (0.75, 1.3333)}), *after_the_resize]
    assert meant == [("resize", {}), *after_the_resize]


@pytest.mark.parametrize(
    ("name", "label", "file", "resized"),
    [
        ("pets_last_l", "l = 3", "resnet18-f37072fd.pth", 256),
        ("pets_resnet50", "AdamW l = 3", "resnet50-0676ba61.pth", 256),
        ("pets_resnet50", "meant: default weights SGD l = 0", "resnet50-11ad3fa6.pth", 232),
    ],
)
def test_weights_and_their_transform(name, label, file, resized):
    row = rows(name)[label]
    assert get_weights(row.config.model.backbone, row.config.model.weights).name == file
    geometry = resolve(row.config).geometry
    assert (geometry.image_size, geometry.interpolation) == (224, "bilinear")
    assert geometry.image_size / geometry.crop_fraction == pytest.approx(resized)


# Training and validation images of each breed of Oxford-IIIT Pet, where they are not 100, and its cats.
COUNTS = {"Bombay": 96, "Egyptian_Mau": 93, "english_cocker_spaniel": 96, "newfoundland": 96}
CATS = ("Abyssinian", "Bengal", "Birman", "Bombay", "British_Shorthair", "Egyptian_Mau", "Maine_Coon", "Persian", "Ragdoll",
        "Russian_Blue", "Siamese", "Sphynx")  # fmt: skip


def pets(breed_of_99):
    """Return Oxford-IIIT Pet without pixels, its images in a random order. The source does not tell which breed has 99."""
    taken = (*pets_imbalance.TAKEN_FOR_CATS, *pets_imbalance.TAKEN_FOR_DOGS)
    names = tuple(sorted(taken, key=str.lower))
    counts = [({**COUNTS, breed_of_99: 99}).get(name, 100) for name in names]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(37), counts))
    train, test = (make_examples(ImageStore(np.zeros((len(part), 1, 1, 3), np.uint8)), part) for part in (labels, np.arange(37)))
    cats = tuple(names.index(name) for name in CATS)
    dogs = tuple(label for label in range(37) if label not in cats)
    return DatasetSource("oxford_iiit_pet", names, train, None, test, "0", superclasses={"cat": cats, "dog": dogs})


@pytest.mark.parametrize("breed_of_99", ["Siamese", "scottish_terrier"])
def test_sizes_of_the_imbalanced_sets_are_the_published_ones(breed_of_99):
    source, table = pets(breed_of_99), rows("pets_imbalance")
    assert len(source.train) == 3680
    splits = {label: make_splits(source, row.config.data, 0) for label, row in table.items()}
    sizes = {label: (len(split.train), len(split.validation)) for label, split in splits.items()}
    meant = {label: sizes.pop(label) for label in list(sizes) if label.startswith("meant: ")}
    assert sizes == {label: (1450, 726) if label == "cat majority" else (2227, 712) for label in sizes}
    assert all(validation == 736 for _, validation in meant.values())
    assert meant["meant: dog majority"][0] in (2230, 2231) and meant["meant: cat majority"][0] in (1448, 1449)
    assert len(make_splits(source, rows("pets_last_l")["l = 3"].config.data, 0).train) == 2944


def test_breeds_taken_for_cats_follow_the_breeds_of_cats(shared):
    labels = (shared / "data/tfds/oxford_iiit_pet/4.0.0/label.labels.txt").read_text().split()
    assert [labels[labels.index(cat) + 1] for cat in CATS] == list(pets_imbalance.TAKEN_FOR_CATS)
    assert sorted((*pets_imbalance.TAKEN_FOR_CATS, *pets_imbalance.TAKEN_FOR_DOGS)) == sorted(labels)
    assert list(pets_imbalance.TAKEN_FOR_DOGS) == [label for label in labels if label not in pets_imbalance.TAKEN_FOR_CATS]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rows_with_equal_settings_are_those_that_the_source_report_ran_twice(name):
    groups = {}
    for label, row in rows(name).items():
        groups.setdefault(row.config.replace(seed=0), {})[label] = row.config.seed
    assert {tuple(group) for group in groups.values() if len(group) > 1} == REPEATED.get(name, set())
    assert all(len({*group.values()}) == len(group) for group in groups.values())


DIGITS = {"dataset": "digits", "weights": "none", "backbone": "efficientnet_lite0", "image_size": 64, "limit_train": 64, "limit_test": 32}


def test_rows_with_equal_settings_run_with_other_seeds(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("tl_keras.runs.run.run_resolved", lambda run, run_dir, **options: started.append((run.config, run_dir)))
    options = ExperimentOptions(tmp_path, DIGITS, QUICK, labels=("baseline", "different rates"), seeds=(0, 1), log=lambda message: None)
    run_experiment(EXPERIMENTS["pets_gradual"], options)
    assert [config.seed for config, _ in started] == [0, 1, 2000, 2001]
    assert len({config.replace(seed=0) for config, _ in started}) == 1 and len({run_dir for _, run_dir in started}) == 4


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_profile_is_the_same_at_half_of_the_epochs(name):
    paper, quick = rows(name), rows(name, QUICK)
    for label, row in quick.items():
        assert row.config.train.epochs == 5 and trained(row) == trained(paper[label])[::2]
        assert [phase.eval_mode for phase in phases(row)] == [phase.eval_mode for phase in phases(paper[label])][:5]
        if label != "AdamW warm-up":
            falls = factors(paper[label]) == STEP
            assert factors(row) == ([1.0] * 4 + [0.1] if falls else [1.0] * 5)
        before, after = (config.identity() for config in (paper[label].config, row.config))
        assert {setting for setting in before if before[setting] != after[setting]} <= {
            *("epochs", "schedule", "strategy", "image_size", "warmup_epochs"),
            *(("fraction",) if name == "pets_resnet50" else ()),
        }


@pytest.mark.parametrize(("profile", "epochs"), [(PAPER, 2), (QUICK, 1), (SMOKE, 1)])
def test_warm_up_takes_a_fifth_of_the_epochs_and_at_least_one(profile, epochs):
    assert rows("pets_resnet50", profile)["AdamW warm-up"].config.train.warmup_epochs == epochs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_profile_runs_before_and_after_the_switch_to_evaluation_mode(name):
    for label, row in rows(name, SMOKE).items():
        modes = {phase.eval_mode for phase in phases(row)}
        assert modes == {"AdamW batch statistics": {False}, "AdamW fixed statistics": {True}}.get(label, {False, True})


EQUIVALENTS = {"layer1": "block5", "layer2": "block6", "layer3": "block7", "layer4": "top", "head": "head"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_another_backbone_trains_the_equivalent_stages(name):
    resnet, lite = rows(name), rows(name, backbone="efficientnet_lite0")
    stem = ("stem", "block1", "block2", "block3", "block4")
    for label, row in lite.items():
        expected = [
            (*(stem if "stem" in stages else ()), *(EQUIVALENTS[stage] for stage in stages if stage != "stem"))
            for stages in trained(resnet[label])
        ]
        assert trained(row) == expected
        assert get_weights("efficientnet_lite0", row.config.model.weights) is not None
        pairs = [pair.split("=") for pair in resnet[label].config.train.stage_learning_rates.split(",") if pair]
        rates = ",".join(f"{EQUIVALENTS.get(stage, stage)}={rate}" for stage, rate in pairs)
        assert row.config.train.stage_learning_rates == rates


@pytest.mark.parametrize("name", ["pets_last_l", "pets_factors", "pets_gradual", "pets_resnet50", "pets_batchnorm"])
def test_every_row_without_names_of_breeds_runs_on_another_data_set(name, tmp_path):
    selected, embedded = available_rows(EXPERIMENTS[name], ExperimentOptions(tmp_path, DIGITS, QUICK))
    assert not embedded and len(selected) == len(STAGES[name])
    assert {(row.config.data.dataset, row.config.model.image_size) for row in selected} == {("digits", 64)}


def test_imbalance_on_another_data_set_needs_names_of_its_classes(tmp_path):
    experiment, overrides = EXPERIMENTS["pets_imbalance"], {**DIGITS, "keep": "even:0.25"}
    with pytest.raises(ConfigError, match="Unknown class or superclass 'american_bulldog'.*Known: .*even"):
        available_rows(experiment, ExperimentOptions(tmp_path, DIGITS, QUICK))
    named = [label for label in STAGES["pets_imbalance"] if "majority" in label]
    for label in named:
        with pytest.raises(ConfigError, match="keep=.*Unknown class or superclass"):
            available_rows(experiment, ExperimentOptions(tmp_path, overrides, QUICK, labels=(label,)))
    others = [label for label in STAGES["pets_imbalance"] if label not in named]
    selected, _ = available_rows(experiment, ExperimentOptions(tmp_path, overrides, QUICK, labels=others))
    assert [row.label for row in selected] == others and {row.config.data.keep for row in selected} == {"even:0.25"}


def test_cat_or_dog_needs_a_data_set_of_species(tmp_path):
    with pytest.raises(ConfigError, match="label=species.*digits has label, parity"):
        available_rows(EXPERIMENTS["pets_binary"], ExperimentOptions(tmp_path, DIGITS, QUICK))


def test_digits_replace_missing_pets(offline, tmp_path):
    overrides = {"data_dir": str(tmp_path), "backbone": "mobilenet_0.25", "image_size": 32}

    def kept(name):
        options = ExperimentOptions(tmp_path, overrides, SMOKE, on_missing="embedded", log=lambda message: None)
        with pytest.raises(MissingError, match="oxford_iiit_pet"):
            available_rows(EXPERIMENTS[name], dataclasses.replace(options, on_missing="error"))
        selected, _ = available_rows(EXPERIMENTS[name], options)
        assert {row.config.data.dataset for row in selected} == {"digits"}
        return {row.label: row.config.data for row in selected}

    keep = {label: data.keep for label, data in kept("pets_imbalance").items()}
    assert keep == {label: "odd:0.25" if "cat majority" in label else "even:0.25" for label in keep}
    assert {data.label for data in kept("pets_binary").values()} == {"parity"}


def test_published_averages_are_means_of_the_repeated_runs():
    """The text prints the averages of L2 and AdamW over l = 0 and l = 1."""
    table = rows("pets_resnet50")
    means = {name: math.fsum(table[f"{name} l = {number}"].published["test accuracy"] for number in (0, 1)) / 2 for name in OPTIMIZERS}
    assert means["SGD with L2"] == pytest.approx(90.64, abs=0.006) and means["AdamW"] == pytest.approx(90.94, abs=0.006)
