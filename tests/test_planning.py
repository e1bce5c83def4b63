"""The parts of a plan: near duplicates, errors of labels, and the choices, each as a function of arrays and numbers."""

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras.backbones import get_backbone
from tl_keras.config import RunConfig
from tl_keras.data import DatasetSource, ImageStore, make_examples
from tl_keras.errors import ConfigError
from tl_keras.planning import inspection, label_errors, near_duplicates, plan
from tl_keras.planning.features import ImageFeatures
from tl_keras.planning.findings import MAX_RECORDED, make_record
from tl_keras.planning.inspection import WITHOUT_FEATURES, FeatureFindings, describe_features, examine_features
from tl_keras.planning.label_errors import find_label_errors, held_out_logits, suspects
from tl_keras.planning.near_duplicates import find_near_duplicates
from tl_keras.planning.plan import Choice, Times
from tl_keras.results.inspection_record import read_inspection, write_inspection

NUM_IMAGES, NUM_CHANNELS = 240, 300


def clusters(num_images=NUM_IMAGES, num_classes=3, distance=6.0, seed=0):
    """Return features around a centre for each class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    centres = rng.standard_normal((num_classes, NUM_CHANNELS)) / np.sqrt(NUM_CHANNELS)
    return (5 + distance * centres[labels] + 0.3 * rng.standard_normal((num_images, NUM_CHANNELS))).astype(np.float32), labels


def with_near_copies(pairs):
    features, _ = clusters()
    noise = 0.03 * np.random.default_rng(1).standard_normal((NUM_IMAGES, NUM_CHANNELS))
    for first, second in pairs:
        features[second] = features[first] + noise[first]
    return features


@pytest.mark.parametrize("block", [7, 1024])
def test_near_copies_in_different_splits_are_found(block, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    features, splits = with_near_copies([(0, 200), (10, 201), (20, 30), (202, 40)]), np.repeat([0, 2], NUM_IMAGES // 2)
    digests = np.arange(NUM_IMAGES, dtype=np.uint64)
    digests[201] = digests[10]  # an exact copy is no near one
    pairs = find_near_duplicates(features, splits, digests)
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 200), (40, 202)}  # 20 and 30 are in one split
    assert all(0.9 < pair.cosine <= 1.001 for pair in pairs)
    assert [pair.cosine for pair in pairs] == sorted((pair.cosine for pair in pairs), reverse=True)


def test_images_of_a_class_are_no_near_copies():
    features, _ = clusters(distance=60.0)
    assert find_near_duplicates(features, np.arange(NUM_IMAGES) % 3, np.arange(NUM_IMAGES)) == []


@pytest.mark.parametrize("num_images", [1, 2, 5, 40])
def test_few_images_are_compared_without_whitening(num_images):
    features = np.random.default_rng(0).standard_normal((num_images, NUM_CHANNELS))
    features[-1] = features[0] + 1e-3
    pairs = find_near_duplicates(features, np.arange(num_images), np.arange(num_images))
    assert [(pair.first, pair.second) for pair in pairs] == ([(0, num_images - 1)] if num_images > 2 else [])


def test_constant_features_give_no_pair():
    assert find_near_duplicates(np.ones((120, 100)), np.arange(120), np.arange(120)) == []


FLIPPED = [3, 50, 101, 155, 239]


def flipped_labels(labels):
    wrong = labels.copy()
    wrong[FLIPPED] = (labels[FLIPPED] + 1) % 3
    return wrong


def test_flipped_labels_are_found_with_the_right_ones():
    features, labels = clusters()
    found = find_label_errors(features, flipped_labels(labels))
    assert {suspect.position for suspect in found} == set(FLIPPED)
    assert all(suspect.suggested == labels[suspect.position] for suspect in found)
    assert all(suspect.probability - suspect.own_probability >= label_errors.MIN_MARGIN for suspect in found)


def test_right_labels_raise_no_alarm():
    assert find_label_errors(*clusters()) == []


def test_copies_of_one_wrong_label_are_held_out_together():
    """Apart, each of two equal images would be trained with the other, and agree with its wrong label."""
    features, labels = clusters(distance=4.0)
    wrong, groups = flipped_labels(labels), np.arange(NUM_IMAGES)
    for position in FLIPPED:
        features[position + 1 - 2 * (position == 239)] = features[position]
        wrong[position + 1 - 2 * (position == 239)] = wrong[position]
        groups[position + 1 - 2 * (position == 239)] = groups[position]
    for held_out in label_errors._folds(wrong, groups):
        assert not set(groups[held_out]) & set(groups[~held_out])
    together, apart = (
        len(set(FLIPPED) & {found.position for found in find_label_errors(features, wrong, kept)}) for kept in (groups, None)
    )
    assert together >= 4 > apart


def test_small_classes_are_left_out():
    features, labels = clusters()
    labels = np.append(labels, [7, 7, 9])
    features = np.concatenate([features, features[:3]])
    assert find_label_errors(features, labels) == []
    assert find_label_errors(features[:4], np.array([0, 0, 1, 1])) == []
    assert find_label_errors(features[:6], np.zeros(6, int)) == []


@pytest.mark.parametrize("num_images", [60, 600])
def test_the_held_out_head_is_ridge_regression(num_images, monkeypatch):
    """More channels than images and fewer: both are the solution of the normal equations of the other folds."""
    monkeypatch.setattr(label_errors, "PENALTIES", (0.1,))
    features, labels = clusters(num_images)
    features = features.astype(np.float64)
    logits = held_out_logits(features, labels) / label_errors.SCALE
    for held_out in label_errors._folds(labels, None):
        inputs, targets = features[~held_out], np.eye(3)[labels[~held_out]]
        centred = inputs - inputs.mean(axis=0)
        penalty = 0.1 * np.square(centred).sum() / NUM_CHANNELS
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(NUM_CHANNELS), centred.T @ (targets - targets.mean(axis=0)))
        expected = (features[held_out] - inputs.mean(axis=0)) @ weights + targets.mean(axis=0)
        np.testing.assert_allclose(logits[held_out], expected, atol=1e-8)


def test_the_confident_joint_is_that_of_the_paper():
    """Thresholds are the mean probabilities of the own images: 0.7 and 0.6. Image 2 is claimed; 3 is unsure; 4 is below the threshold."""
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.25, 0.75], [0.2, 0.8], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1])
    assert [(found.position, found.suggested) for found in suspects(probabilities, labels)] == [(2, 1)]


@pytest.mark.parametrize(("text", "seconds"), [("5min", 300), ("90", 90), ("90s", 90), (" 1.5 h ", 5400), ("2M", 120)])
def test_budgets(text, seconds):
    assert plan.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0min", "five", "-1", "5 days", "1e3", "nan"])
def test_other_budgets_are_refused(text):
    with pytest.raises(ConfigError, match=r"`budget=.*`: expected a time above 0, e\.g\. 5min"):
        plan.parse_budget(text)


@pytest.mark.parametrize("text", ["plain", "a b", "it's", 'say "x"', "a\nb", "tab\t'q'\\n", "Käse $HOME `x`", "\udce9\n", "<b>&amp;"])
def test_a_shell_reads_a_quoted_word_back(text):
    word = plan.quote(text)
    assert "\n" not in word
    done = subprocess.run(["bash", "-c", b"printf %s " + word.encode("utf-8", "surrogateescape")], capture_output=True, check=True)
    assert done.stdout == text.encode("utf-8", "surrogateescape")


def test_settings_that_are_given_win_and_are_named():
    choices = [Choice("epochs", 30, "enough"), Choice("optimizer", "adamw", "usual")]
    config = plan.apply(RunConfig(), choices, {"epochs": 3})
    assert (config.train.epochs, config.train.optimizer) == (3, "adamw")
    assert plan.describe(choices, {"epochs": 3}) == ["`epochs=3`         given", "`optimizer=adamw`  usual"]


def test_the_command_trains_the_plan():
    from tl_keras.cli.flags import CommandFlags
    from tl_keras.config import SETTINGS

    config = RunConfig().replace(dataset="folder:/a b\n'c'", grid="l2=0|1", strategy="head", save_model=False, time_limit=90, seed=3)
    command = plan.train_command(config, Path("runs/x y"))
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, text=True).stdout.split("\0")[:-1]
    flags = CommandFlags("", settings=list(SETTINGS), extra={"run_dir": ("", "")})
    given = flags.parse(words[2:])
    assert given.pop("run_dir") == "runs/x y"
    assert RunConfig().replace(**given) == config


LITE = get_backbone("efficientnet_lite0")


@pytest.mark.parametrize(
    ("per_image", "left", "size"),
    [(0.01, 300, 224), (0.15, 300, 224), (0.2, 300, 192), (0.4, 300, 128), (10.0, 300, 32), (0.01, 1, 32)],
)
def test_the_image_size_fits_the_time(per_image, left, size):
    """0.4 of 225 s for 600 images are 0.15 s for each."""
    choice = plan.choose_image_size(LITE, 224, 600, Times(left, 75, per_image))
    assert choice.value == size
    assert "600 images" in choice.reason


def test_the_image_size_fits_the_backbone():
    vit = get_backbone("vit_b16")
    assert plan.choose_image_size(vit, 224, 600, Times(300, 75, 0.4)).value % 16 == 0


@pytest.mark.parametrize(("num_train", "size"), [(1, 16), (20, 16), (244, 16), (400, 16), (1000, 32), (5000, 64), (1_000_000, 64)])
def test_the_batch_size_fits_the_images(num_train, size):
    assert plan.choose_batch_size(num_train).value == size


def test_few_images_validate_a_fifth():
    assert [choice.value for choice in plan.choose_validation(500)] == [0.2]
    assert plan.choose_validation(2000) == []
    assert [choice.value for choice in plan.choose_validation(2)] == [0.0]


def test_a_grid_is_as_large_as_memory_allows():
    sizes = []
    for num_classes in (3, 1000, 100_000):
        config = plan.apply(RunConfig(), plan.choose_head(1280, num_classes), {})
        from tl_keras.strategies import grid

        sizes.append(len(grid.parse(config.train.grid, config)))
    assert sizes == [21, 15, 6]


@pytest.mark.parametrize(
    ("given", "possible"),
    [({}, True), ({"strategy": "head"}, True), ({"epochs": 3}, True), ({"strategy": "full"}, False), ({"learning_rate": 0.1}, False),
     ({"augmentation": "flip"}, False), ({"validation_fraction": 0.0}, False)],
)  # fmt: skip
def test_settings_that_are_given_may_exclude_a_grid(given, possible):
    assert plan.is_grid_possible(given) == possible
    if not possible and "validation_fraction" not in given:
        plan.apply(RunConfig(), plan.choose_plainly(given, "excluded"), given)


def test_the_last_stages_are_trained_if_enough_epochs_fit():
    assert plan.is_worth_measuring(Times(300, 75, 0.01), 600) and not plan.is_worth_measuring(Times(300, 75, 0.1), 600)
    assert [plan.num_deep_epochs(Times(300, 75, 0.01, seconds), 16) for seconds in (0.01, 1.0, 3.0)] == [plan.MAX_DEEP_EPOCHS, 7, 2]
    config = plan.apply(RunConfig(), plan.choose_deep(LITE, 7), {})
    from tl_keras.runs.resolve import resolve

    phases = resolve(config).phases
    assert [phase.epochs for phase in phases] == [5, 5, 7]
    assert [set(phase.trainable) for phase in phases] == [{"head"}, {"top", "head"}, {"block7", "top", "head"}]


def test_a_network_is_trained_from_scratch_as_long_as_it_fits():
    assert [plan.num_scratch_epochs(Times(300, 75, seconds), 244) for seconds in (1e-4, 0.01, 10.0)] == [plan.MAX_SCRATCH_EPOCHS, 23, 1]


def test_a_backbone_is_chosen_by_the_weights_that_are_there(tmp_path, monkeypatch):
    files = {"resnet18": ["resnet18.pth"], "efficientnet_lite0": ["lite0.pth"]}

    def local_files(entry, weights_dir):
        assert weights_dir == "somewhere"
        return (Path(path) for name, paths in found.items() for path in paths if entry in plan.WEIGHTS[name])

    monkeypatch.setattr(plan, "local_files", local_files)
    found = files
    assert [choice.value for choice in plan.choose_backbone("somewhere")] == ["efficientnet_lite0", "imagenet"]
    found = {"resnet18": ["resnet18.pth"]}
    assert [choice.value for choice in plan.choose_backbone("somewhere")] == ["resnet18", "imagenet"]
    assert [choice.value for choice in plan.choose_backbone("somewhere", "vgg16")] == ["vgg16", "none"]
    found = {}
    backbone, weights = plan.choose_backbone("somewhere")
    assert (backbone.value, weights.value) == (plan.RANDOM_BACKBONE, "none") and "pip install" in weights.reason


def a_source(root, num_images=240, name="image"):
    """Return a data set of tiny files, of which each has one copy, two classes, and 120 files that cannot be read."""
    colours = np.arange(num_images) // 2
    (root / "images").mkdir()
    paths = [root / "images" / f"{number}-{name}.png" for number in range(num_images)]
    for path, colour in zip(paths, colours.tolist(), strict=True):
        Image.new("RGB", (300, 9), (colour, 0, 0)).save(path)
    images = ImageStore(paths, paths=[path.name for path in paths], digests=[bytes([colour] * 8) for colour in colours.tolist()])
    examples = make_examples(images, np.arange(num_images) % 2)
    unreadable = tuple((f"{number}.png", f"no image\n{name}") for number in range(120))
    part = examples.subset(np.arange(1))
    return DatasetSource("folder:x", ("cat", "<b>dog"), examples, None, part, fingerprint="", unreadable=unreadable), examples


@pytest.mark.parametrize("name", ["image", "\N{ROCKET}" * 50], ids=["short", "long"])
def test_the_record_of_findings_is_limited_whatever_the_names(name, tmp_path):
    source, examples = a_source(tmp_path, name=name)
    found = ImageFeatures(examples, np.repeat([0, 2], 120), None)
    suspects = [label_errors.Suspect(position, 1, 0.98765, 0.01) for position in range(0, 240, 2)]
    pairs = [near_duplicates.Pair(position, 239, 0.9) for position in range(110)]
    record = make_record(source, FeatureFindings(pairs, suspects), found, ["two classes"])
    write_inspection(tmp_path, record)
    read = read_inspection(tmp_path)
    assert [len(part) for part in (read.suspected_labels, read.near_duplicates, read.corrupt, read.copies)] == [MAX_RECORDED] * 4
    assert read.notes == (
        "two classes", "20 more suspected labels are not listed", "10 more near duplicates are not listed",
        "20 more unreadable files are not listed", "20 more groups of copies are not listed",
    )  # fmt: skip
    suspect = read.suspected_labels[1]
    assert (suspect.file, suspect.label, suspect.suggested, suspect.confidence) == (f"2-{name}.png", "cat", "<b>dog", 0.9877)
    assert suspect.thumbnail.shape[1] < 300 and read.corrupt[0] == ("0.png", f"no image {name}")
    assert all(len(copies) == 2 for copies in read.copies) and read.near_duplicates[0] == (f"0-{name}.png", f"239-{name}.png", 0.9)


def test_a_record_without_features_says_so(tmp_path):
    source, _ = a_source(tmp_path, num_images=12)
    record = make_record(source, WITHOUT_FEATURES, None, [])
    assert record.suspected_labels == record.near_duplicates == () and "needs a pre-trained network" in record.notes[0]


def test_of_many_copies_the_first_are_listed(tmp_path):
    source, _ = a_source(tmp_path, num_images=2)
    images = ImageStore([tmp_path] * 9, paths=["long" * 100, *"bcdefghi"], digests=[b"8 bytes."] * 9)
    source = dataclasses.replace(source, train=make_examples(images, [0] * 9))
    (copies,) = make_record(source, WITHOUT_FEATURES, None, []).copies
    assert copies == ("..." + "long" * 50, "b", "c", "d", "e", "and 4 more")


@pytest.mark.parametrize(
    ("limits", "notes"),
    [
        ({}, []),
        ({"MAX_COMPARED": 10}, ["near duplicates are not looked for"]),
        ({"MAX_SCORES": 10}, ["labels are not judged"]),
    ],
)
def test_large_data_sets_are_not_compared_or_judged(limits, notes, tmp_path, monkeypatch):
    for limit, value in limits.items():
        monkeypatch.setattr(inspection, limit, value)
    _, examples = a_source(tmp_path, num_images=60)
    features, _ = clusters(60, num_classes=2)
    found = ImageFeatures(examples, np.repeat([0, 2], 30), features)
    findings = examine_features(found, 2)
    assert [note.partition(":")[0] for note in findings.notes] == notes
    assert (findings.pairs is None, findings.suspects is None) == ("MAX_COMPARED" in limits, "MAX_SCORES" in limits)
    lines = describe_features(findings, found, ["cat", "dog"])
    assert len(lines) == 2 and lines[-1] == findings.notes[0] if notes else lines[0].startswith("no near duplicates")
