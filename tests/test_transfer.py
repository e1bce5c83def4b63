"""Training that starts from a trained model: a run, an export, a SavedModel or a delta file; and the delta files of runs."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain_config import PLAIN
from test_data_folder import write_classes

from tl_keras import weights
from tl_keras.backbones import build_classifier, stage_layers, variables_by_path
from tl_keras.cli import main
from tl_keras.config import TrainConfig
from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.results import run_directory
from tl_keras.runs import deltas
from tl_keras.runs.predict import Predictor
from tl_keras.runs.resolve import check_available, resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_setup
from tl_keras.strategies import STRATEGIES, build_phases, freezing, lora
from tl_keras.utils.files import read_npz, write_npz
from tl_keras.weights import delta_file, trained_model

NAMES = ("cat", "dog", "fox")
SETTINGS = {
    "backbone": "tiny", "epochs": 1, "batch_size": 8, "learning_rate": 0.05, "precision": "float32", "normalization": "none",
    "image_size": 12, "crop_fraction": 0.8, "interpolation": "bicubic",
}  # fmt: skip
# Settings that follow the trained model where the user does not choose them.
FOLLOWING = {
    name: value for name, value in SETTINGS.items() if name not in ("normalization", "image_size", "crop_fraction", "interpolation")
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run on a folder of cats, dogs and foxes."""
    root = tmp_path_factory.mktemp("source")
    write_classes(root / "photos", NAMES, num=8)
    run(PLAIN.replace(dataset=f"folder:{root / 'photos'}", weights="none", **SETTINGS), root / "run")
    return root / "run"


@pytest.fixture
def photos(tmp_path):
    """Return a function from class names to the name of a new data set with these classes."""

    def write(*class_names):
        write_classes(tmp_path / "photos", class_names, num=6, first=5000)
        return f"folder:{tmp_path / 'photos'}"

    return write


def values_of(model):
    return {path: np.array(variable.numpy()) for path, variable in variables_by_path(model).items()}


def arrays_of(run_dir):
    return values_of(keras.models.load_model(run_dir / "model.keras"))


def start(source, class_names, **build):
    """Return a new model of `class_names` before and after loading `source`, as arrays, and the record."""
    model = build_classifier("tiny", len(class_names), image_size=12, normalization="none", **build)
    before = values_of(model)
    path = weights.find_weights_file("tiny", str(source))
    info = weights.load_weights(model, "tiny", path, class_names=class_names)
    return before, values_of(model), info


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


# The head, by name


@pytest.mark.parametrize(
    "class_names",
    [NAMES, ("fox", "cat", "dog"), ("fox", "cat"), ("ant", "cat", "dog", "elk", "fox"), ("Cat", "fox"), ("cat ", "dog")],
    ids=["same", "reordered", "subset", "superset", "another case", "a space"],
)
def test_the_head_is_taken_by_name(source, class_names):
    before, after, info = start(source, class_names)
    trained = arrays_of(source)
    common = [name for name in class_names if name in NAMES]
    for column, name in enumerate(class_names):
        there = (trained, NAMES.index(name)) if name in NAMES else (before, column)
        np.testing.assert_array_equal(after["logits/kernel"][:, column], there[0]["logits/kernel"][:, there[1]])
        assert after["logits/bias"][column] == there[0]["logits/bias"][there[1]]
    assert info.head == f"{len(common)} of {len(class_names)} classes taken from the run {source} by name" and not info.missing
    assert info.loaded == len(trained)
    assert_same(*({path: array for path, array in arrays.items() if "logits" not in path} for arrays in (after, trained)))


def test_without_a_common_class_the_head_is_new(source):
    before, after, info = start(source, ("ant", "bee", "elk"))
    assert info.head.startswith("0 of 3 classes taken") and set(info.missing) == {"logits/kernel", "logits/bias"}
    np.testing.assert_array_equal(after["logits/kernel"], before["logits/kernel"])
    np.testing.assert_array_equal(after["body_conv/kernel"], arrays_of(source)["body_conv/kernel"])


def loading_info(**settings):
    """Return what a run with these settings would load."""
    return build_setup(resolve(PLAIN.replace(**FOLLOWING, **settings))).loading_info


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"extra_classes": 2}, "classes without images"), ({"head": "one_logit"}, "one logit")],
)
def test_logits_that_are_no_classes_take_no_head(source, photos, tmp_path, settings, reason):
    info = loading_info(dataset=photos("cat", "dog"), weights=str(source), **settings)
    assert info.head.startswith("left out: the new head") and reason in info.head
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**result, "config": {**result["config"], **settings}}))
    assert start(copy, NAMES)[2].head.startswith(f"left out: that of the run {copy} has")


# A run from a run


def test_the_command_line_says_what_was_taken_and_notices_a_change(source, photos, tmp_path, capsys, monkeypatch):
    """With a relative path and a slash at the end; the settings of the input are those of the trained model."""
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    monkeypatch.chdir(tmp_path)
    flags = [f"--{name}={value}" for name, value in FOLLOWING.items()]
    command = ["train", f"--dataset={photos('ant', 'cat', 'dog')}", "--weights=copy/", "--run_dir=next", *flags]
    assert main(command) == 0
    assert f"head      2 of 3 classes taken from the run {copy} by name" in capsys.readouterr().out
    model, first = run_directory.load_result(Path("next"))["model"], run_directory.load_result(source)
    assert [model[name] for name in ("normalization", "image_size", "crop_fraction", "interpolation")] == ["none", 12, 0.8, "bicubic"]
    assert model["weights"] == str(copy) and len(model["weights_sha256"]) == 64
    assert model["loading_info"]["weights_source"]["fingerprint"] == first["data"]["fingerprint"]
    assert model["loading_info"]["notes"] == []
    build_classifier("tiny", 3, image_size=12, normalization="none").save(copy / "model.keras")
    assert main(command) == ConfigError.exit_code
    assert "another content" in capsys.readouterr().err


def test_a_setting_that_differs_from_the_trained_model_is_said(source, photos):
    chosen = {"normalization": "imagenet", "image_size": 16, "crop_fraction": 1.0}
    notes = loading_info(dataset=photos("cat", "dog"), weights=str(source), **chosen).notes
    assert [note.split("`")[1] for note in notes] == ["normalization=imagenet", "image_size=16", "crop_fraction=1.0"]
    assert all(f"the run {source} had" in note for note in notes)


def test_paths_are_absolute_and_names_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spellings = ["runs/a", "./runs/a/", f"{tmp_path}/runs/b/../a", "runs//a"]
    assert {PLAIN.replace(weights=text).model.weights for text in spellings} == {str(tmp_path / "runs" / "a")}
    assert PLAIN.replace(weights="file.pth#ema").model.weights == f"{tmp_path}/file.pth#ema"
    for name in ("none", "imagenet", "swag_e2e"):
        (tmp_path / name).mkdir()
        assert PLAIN.replace(weights=name).model.weights == name


# Other forms of a model


def serving(model):
    """Return a model with the interface of an export."""
    images = keras.Input((None, None, 3), dtype="uint8", name="image")
    resized = keras.layers.Resizing(12, 12)(images)
    return keras.Model(images, keras.layers.Softmax()(model(resized, training=False)), name="classifier")


@pytest.fixture(scope="module")
def exports(source, tmp_path_factory):
    """The model of the source in other forms: name -> (path, name for messages)."""
    root, model = tmp_path_factory.mktemp("exports"), keras.models.load_model(source / "model.keras")
    served = serving(model)
    for form in ("keras", "saved_model"):
        (root / form).mkdir()
        trained = trained_model.facts_of_result(run_directory.load_result(source))
        labels = {"class_names": list(NAMES), "temperature": 2.0, "trained": trained}
        (root / form / "labels.json").write_text(json.dumps(labels))
    served.save(root / "keras" / "model.keras")
    served.export(root / "saved_model" / "saved_model", verbose=False)
    shutil.copy(source / "model.keras", root / "bare.keras")
    return root


@pytest.mark.parametrize("name", ["keras", "keras/model.keras", "saved_model", "saved_model/saved_model"])
def test_an_export_is_read_with_its_head(exports, source, name, monkeypatch):
    """A SavedModel is not loaded, so its functions do not run. A temperature in the head is named."""
    monkeypatch.setattr(tf.saved_model, "load", lambda *arguments, **options: pytest.fail("the graph was loaded"))
    _, after, info = start(exports / name, ("fox", "cat"))
    trained = arrays_of(source)
    np.testing.assert_array_equal(after["logits/kernel"], trained["logits/kernel"][:, [2, 0]])
    np.testing.assert_array_equal(after["body_bn/moving_mean"], trained["body_bn/moving_mean"])
    assert info.head.startswith("2 of 2 classes taken from the export") and "temperature 2 " in info.notes[0]
    assert weights.normalization_of("tiny", str(exports / name)) == "none"
    assert weights.preprocessing_of("tiny", str(exports / name)) == (12, 0.8, "bicubic", True)
    assert info.weights_source["fingerprint"] == run_directory.load_result(source)["data"]["fingerprint"]


def test_a_bare_model_gives_its_backbone_and_input_and_no_head(exports, source):
    """`normalization` and `image_size` are read from its layers. Nothing beside the file says what its classes are."""
    path = exports / "bare.keras"
    _, after, info = start(path, NAMES)
    assert info.head == f"left out: the model {path} has no class names" and info.loaded == len(after) - 2
    np.testing.assert_array_equal(after["body_conv/kernel"], arrays_of(source)["body_conv/kernel"])
    assert weights.normalization_of("tiny", str(path)) == "none" and weights.preprocessing_of("tiny", str(path)).image_size == 12


@pytest.mark.parametrize("normalization", ["imagenet", "caffe", "half", "efficientnet_lite", "cifar10"])
def test_the_normalization_of_a_bare_model_is_read_from_its_layers(tmp_path, normalization):
    build_classifier("tiny", 2, normalization=normalization).save(tmp_path / "model.keras")
    assert weights.normalization_of("tiny", str(tmp_path / "model.keras")) == normalization


def test_a_saved_model_without_names_is_refused(tmp_path):
    module = tf.Module()
    module.first, module.second = tf.Variable([1.0], name="kernel"), tf.Variable([2.0], name="kernel")
    tf.saved_model.save(module, str(tmp_path / "foreign"))
    with pytest.raises(ConfigError, match="cannot be told apart: one of them is called 'kernel'.*format=keras"):
        start(tmp_path / "foreign", NAMES)
    scoped = tf.Module()
    scoped.first, scoped.second = tf.Variable([1.0], name="layer/kernel"), tf.Variable([2.0], name="layer/kernel")
    tf.saved_model.save(scoped, str(tmp_path / "twice"))
    with pytest.raises(ConfigError, match="different variables are called layer/kernel"):
        start(tmp_path / "twice", NAMES)


@pytest.mark.parametrize("part", ["variables.index", "variables.data-00000-of-00001"])
def test_a_damaged_saved_model_is_reported(exports, tmp_path, part):
    copy = shutil.copytree(exports / "saved_model", tmp_path / "copy") / "saved_model"
    content = (copy / "variables" / part).read_bytes()
    (copy / "variables" / part).write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError, match=r"saved_model cannot be read as a weights file"):
        start(copy, NAMES)


# Refused weights


def test_another_backbone_is_refused_before_data_are_read(source, exports):
    for path, name in ((source, "the run"), (exports / "keras", "the export"), (exports / "bare.keras", "the model")):
        config = PLAIN.replace(dataset="digits", backbone="alexnet_narrow", weights=str(path))
        with pytest.raises(ConfigError, match=f"{name} .* has the backbone tiny. Use `backbone=tiny`"):
            check_available(resolve(config))


def test_two_names_of_one_backbone_agree(tmp_path):
    trained = trained_model.TrainedModel("the run", backbone="mobilenet_1.0")
    trained_model.require_backbone(trained, "mobilenet")
    with pytest.raises(ConfigError, match="mobilenet_1.0"):
        trained_model.require_backbone(trained, "mobilenet_0.75")


DIRECTORIES = {
    "unfinished": (["config.json", "model.keras"], "unfinished run. Run its command again"),
    "without a model": (["config.json", "result.json"], "`save_model=true`"),
    "foreign format": (["labels.json", "model.onnx"], "`format=keras`"),
    "no model": (["photo.png"], "holds no trained model"),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_without_a_model_says_what_to_do(tmp_path, name):
    files, message = DIRECTORIES[name]
    for file in files:
        (tmp_path / file).write_text("{}")
    config = PLAIN.replace(dataset="digits", backbone="tiny", weights=str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        check_available(resolve(config))
    with pytest.raises(ConfigError, match=message):
        run(config, tmp_path / "next")


def test_a_directory_is_named_with_a_separator(source, monkeypatch):
    monkeypatch.chdir(source.parent)
    with pytest.raises(ConfigError, match="`weights=./run`"):
        weights.find_weights_file("tiny", "run")
    with pytest.raises(MissingError, match="there is no such file"):
        weights.find_weights_file("tiny", "runs/gone")


# Files from outside


HOSTILE_RESULTS = {
    "no json": "{",
    "a list": "[]",
    "without a model": '{"data": {}}',
    "a backbone that is a path": {"backbone": "../tiny"},
    "an image size in words": {"image_size": "large"},
    "a crop above 1": {"crop_fraction": 7.0},
    "another normalization": {"normalization": "mine"},
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE_RESULTS)
def test_a_record_with_impossible_values_is_reported(source, tmp_path, name):
    copy, change = Path(shutil.copytree(source, tmp_path / "copy")), HOSTILE_RESULTS[name]
    if isinstance(change, dict):
        result = json.loads((copy / "result.json").read_text())
        change = json.dumps({**result, "model": {**result["model"], **change}})
    (copy / "result.json").write_text(change)
    with pytest.raises(DamagedError, match="result.json cannot be read"):
        weights.find_weights_file("tiny", str(copy))
    resolve(PLAIN.replace(backbone="tiny", weights=str(copy)))  # a finished run that began with it is still evaluated


@pytest.mark.parametrize("class_names", [["cat", "cat", "dog"], ["cat", 1, "dog"], ["cat", ["dog"], "fox"], "cat"])
def test_labels_with_impossible_names_are_reported(exports, tmp_path, class_names):
    copy = Path(shutil.copytree(exports / "keras", tmp_path / "copy"))
    (copy / "labels.json").write_text(json.dumps({"class_names": class_names}))
    with pytest.raises(DamagedError, match="labels.json cannot be read"):
        weights.find_weights_file("tiny", str(copy))


def test_names_that_do_not_fit_the_head_take_nothing(exports, tmp_path):
    copy = Path(shutil.copytree(exports / "keras", tmp_path / "copy"))
    (copy / "labels.json").write_text(json.dumps({"class_names": ["cat", "dog"]}))
    assert "has 2 class names, and its head the shapes" in start(copy, NAMES)[2].head


def test_the_code_in_a_keras_file_does_not_run(exports, tmp_path):
    """Layers that would import a module or run marshalled code are names to this reader, which takes arrays alone."""
    marker, path = tmp_path / "ran", tmp_path / "hostile.keras"
    with zipfile.ZipFile(exports / "bare.keras") as archive:
        config, arrays = json.loads(archive.read("config.json")), archive.read("model.weights.h5")
    layer = {"module": "os", "class_name": "system", "config": {"name": f"touch {marker}", "function": f"touch {marker}"}}
    config["config"]["layers"] += [layer, {**layer, "module": "keras.layers", "class_name": "Lambda"}]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", arrays)
    assert start(path, NAMES)[2].loaded == 12 and not marker.exists()


@pytest.mark.parametrize("config", ["{", "[" * 100_000, "[]", '{"config": {"layers": 3}}', '{"config": {"layers": [], "name": ["tiny"]}}'])
def test_a_keras_file_with_a_strange_configuration_is_read_as_arrays(exports, tmp_path, config, monkeypatch):
    with zipfile.ZipFile(exports / "bare.keras") as archive, zipfile.ZipFile(tmp_path / "m.keras", "w") as copy:
        copy.writestr("config.json", config)
        copy.writestr("model.weights.h5", archive.read("model.weights.h5"))
    assert weights.find_trained_model(tmp_path / "m.keras") == trained_model.TrainedModel(f"the model {tmp_path / 'm.keras'}")
    monkeypatch.setattr(trained_model, "MAX_JSON_BYTES", 10)
    assert weights.find_trained_model(exports / "bare.keras").backbone == ""


# Delta files

# Strategy -> (an example, True if it leaves pre-trained weights frozen).
EXAMPLES = {
    "full": ("full", False),
    "head": ("head", True),
    "last": ("last:1", True),
    "train": ("train:body/conv", True),
    "freeze": ("freeze:stem", True),
    "gradual": ("gradual:end=body", True),
    "head_then_full": ("head_then_full:probe=1", False),
    "batchnorm": ("batchnorm", True),
    "bias": ("bias", True),
    "layer_decay": ("layer_decay:0.5", False),
    "lora": ("lora:rank=2,targets=all", True),
}


def test_every_strategy_has_an_example():
    assert set(EXAMPLES) == set(STRATEGIES)


@pytest.fixture(scope="module")
def digits(tmp_path_factory, finished_run):
    """Settings of a run on digits that starts from a weights file, which several formats hold."""
    path = tmp_path_factory.mktemp("base") / "base.weights.h5"
    model = keras.models.load_model(finished_run.directory / "model.keras")
    model.save_weights(path)
    np.savez(path.with_name("base.npz"), **values_of(model))
    return finished_run.config.replace(weights=str(path), epochs=2, fraction=0.1, limit_test=20, selection="last")


def base_model(digits, num_classes=10):
    model = build_classifier("tiny", num_classes)
    weights.load_weights(model, "tiny", Path(digits.model.weights))
    return model


RECIPE = delta_file.Recipe(
    "tiny", "none", "imagenet", 16, "imagenet", "linear", 0, tuple(str(digit) for digit in range(10)), 1.0, "bilinear", "digits", "0"
)


@pytest.mark.parametrize("name", [name for name, (_, freezes) in EXAMPLES.items() if freezes and name != "lora"])
@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_a_delta_holds_what_the_phases_of_a_strategy_change(digits, tmp_path, name, frozen_mode):
    """The trainer verifies that a phase changes nothing else. Base and delta are the changed model, bit-identical."""
    model, base = base_model(digits), base_model(digits)
    stages = stage_layers(model, "tiny")
    phases = build_phases(("stem", "body"), TrainConfig(strategy=EXAMPLES[name][0], frozen_mode=frozen_mode, epochs=4))
    changed = {path for phase in phases for path in freezing.updated_paths(stages, phase)}
    for variable in model.weights:
        if variable.path in changed:
            variable.assign(variable.numpy() + np.float32(0.1))
    weights.save_delta(tmp_path / "delta.npz", model, changed, RECIPE)
    stored, _ = read_npz(tmp_path / "delta.npz")
    assert set(stored) == changed and {"logits/kernel", "logits/bias"} <= changed < set(values_of(model))
    assert any("moving_mean" in path for path in changed) == (frozen_mode == "training" or name not in ("head", "train"))
    weights.apply_delta(tmp_path / "delta.npz", base)
    assert_same(values_of(base), values_of(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("frozen_mode", ["inference", "training"])
def test_base_and_delta_are_the_model_of_any_run(digits, tmp_path, name, frozen_mode):
    strategy, freezes = EXAMPLES[name]
    run(digits.replace(strategy=strategy, frozen_mode=frozen_mode), tmp_path / "run")
    path = tmp_path / "run" / (lora.FILE if name == "lora" else delta_file.FILE)
    assert path.exists() == freezes and (tmp_path / "run" / "delta.npz").exists() == (freezes and name != "lora")
    if freezes:
        assert_restores(path)


def assert_restores(path):
    """Assert that a delta gives the model of its run, bit-identical, and that it starts another training."""
    trained = keras.models.load_model(path.with_name("model.keras"))
    restored, images = weights.restore_model(path), np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    assert_same(values_of(restored), values_of(trained))
    np.testing.assert_array_equal(restored(images), trained(images))
    model = build_classifier("tiny", 10)
    info = weights.load_weights(model, "tiny", path, class_names=RECIPE.class_names)
    assert info.head == f"10 of 10 classes taken from the delta {path} by name"
    assert_same(values_of(model), values_of(trained))


def test_a_run_writes_a_delta_and_the_adapters_of_lora_are_one(digits, delta, tmp_path):
    assert_restores(delta)
    images = np.random.default_rng(1).integers(0, 256, (3, 20, 30, 3), np.uint8)
    predicted = [Predictor.open(path).predict(images, calibrated=False).probabilities for path in (delta, delta.parent)]
    np.testing.assert_array_equal(*predicted)
    assert not (delta.parent / lora.FILE).exists()
    run(digits.replace(strategy="lora:rank=2,targets=all", save_model=False), tmp_path / "run")
    assert not {"delta.npz", "model.keras"} & set(os.listdir(tmp_path / "run"))
    arrays, meta = read_npz(tmp_path / "run" / lora.FILE)
    merged = lora.load(tmp_path / "run" / lora.FILE, base_model(digits))
    assert_same(values_of(weights.restore_model(tmp_path / "run" / lora.FILE)), values_of(merged))
    write_npz(tmp_path / "other.npz", arrays, meta={**meta, "base_sha256": "0" * 64})
    with pytest.raises(DamagedError, match="trained on other weights"):
        weights.restore_model(tmp_path / "other.npz")


@pytest.fixture(scope="module")
def delta(digits, tmp_path_factory):
    """A run of the head alone, whose directory holds a delta."""
    directory = tmp_path_factory.mktemp("delta") / "run"
    run(digits.replace(strategy="head"), directory)
    return directory / "delta.npz"


@pytest.mark.parametrize("suffix", [".weights.h5", ".npz"])
def test_the_hash_is_of_the_arrays_and_not_of_the_file(digits, delta, suffix):
    model = build_classifier("tiny", 10)
    weights.load_weights(model, "tiny", Path(digits.model.weights).with_name(f"base{suffix}"))
    weights.apply_delta(delta, model)
    assert_same(values_of(model), arrays_of(delta.parent))


def test_another_base_is_refused_and_nothing_is_changed(digits, delta):
    model = base_model(digits)
    kernel = model.get_layer("stem_conv").kernel
    kernel.assign(kernel.numpy() + np.float32(1e-3))
    before = model.get_weights()
    with pytest.raises(DamagedError, match="trained on other weights than those of the model: the SHA-256"):
        weights.apply_delta(delta, model)
    assert all(np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True))
    with pytest.raises(DamagedError, match=r"logits/kernel has shape \(16, 10\); the model expects \(16, 7\)"):
        weights.apply_delta(delta, base_model(digits, 7))


def test_a_base_that_has_changed_or_gone_is_named(digits, delta, tmp_path):
    base = tmp_path / "base.npz"
    arrays, meta = read_npz(delta)
    write_npz(tmp_path / "delta.npz", arrays, meta={**meta, "recipe": {**meta["recipe"], "weights": str(base)}})
    config = digits.replace(weights=str(tmp_path / "delta.npz"))
    with pytest.raises(MissingError, match=r"holds only what was trained, on the weights .*base.npz of tiny.*Or use the model.keras"):
        check_available(resolve(config))
    np.savez(base, **{name: 2 * value for name, value in values_of(base_model(digits)).items()})
    with pytest.raises(DamagedError, match="trained on other weights"):
        run(config, tmp_path / "next")


def test_deltas_may_follow_one_another_and_a_loop_is_refused(digits, delta, tmp_path):
    config = digits.replace(weights=str(delta), strategy="last:1")
    result = run(config, tmp_path / "second")
    assert result["model"]["loading_info"]["weights_source"]["fingerprint"] == result["data"]["fingerprint"]
    second = tmp_path / "second" / "delta.npz"
    assert_same(values_of(weights.restore_model(second)), arrays_of(second.parent))
    arrays, meta = read_npz(second)
    write_npz(tmp_path / "loop.npz", arrays, meta={**meta, "recipe": {**meta["recipe"], "weights": str(tmp_path / "loop.npz")}})
    with pytest.raises(DamagedError, match="is its own base"):
        weights.find_weights_file("tiny", str(tmp_path / "loop.npz"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("backbone", "?"), ("weights", 7), ("weights", "none"), ("class_names", [1, 2]), ("class_names", []), ("image_size", "12"), ("x", 1)],
)
def test_a_delta_with_an_impossible_recipe_is_reported(delta, tmp_path, key, value):
    arrays, meta = read_npz(delta)
    write_npz(tmp_path / "delta.npz", arrays, meta={**meta, "recipe": {**meta["recipe"], key: value}})
    with pytest.raises(DamagedError):
        weights.find_weights_file("tiny", str(tmp_path / "delta.npz"))


@pytest.mark.parametrize("damage", ["truncated", "pickled", "not finite"])
def test_a_damaged_delta_is_reported_and_nothing_is_unpickled(digits, delta, tmp_path, damage):
    path = tmp_path / "delta.npz"
    arrays, meta = read_npz(delta)
    if damage == "truncated":
        path.write_bytes(delta.read_bytes()[:-600])
    elif damage == "pickled":
        np.savez(path, meta=json.dumps(meta), **arrays, object=np.array([{}], dtype=object))
    else:
        write_npz(path, {**arrays, "logits/bias": np.full(10, np.nan, np.float32)}, meta=meta)
    with pytest.raises(DamagedError):
        weights.apply_delta(path, base_model(digits))


@pytest.mark.parametrize(("settings", "is_written"), [({}, True), ({"weights": "none"}, False), ({"strategy": "full"}, False)])
def test_without_a_file_of_the_frozen_weights_there_is_no_delta(digits, tmp_path, settings, is_written):
    """New weights that stay frozen are in no file. A strategy that trains everything leaves none frozen."""
    deltas.write_delta(build_setup(resolve(digits.replace(strategy="head").replace(**settings))), tmp_path, "")
    assert (tmp_path / "delta.npz").exists() == is_written


# Real data


@pytest.mark.slow
def test_mobilenet_goes_from_cifar10_to_pets(shared, tmp_path, monkeypatch, capsys):
    """No class agrees, so the head is new and the backbone is that of the first run."""
    monkeypatch.setenv("KERAS_HOME", str(shared / "weights" / "keras"))
    common = [f"--data_dir={shared / 'data' / 'tfds'}", "--backbone=mobilenet_0.75", "--epochs=1", "--limit_test=60", "--precision=float32"]
    first = ["--dataset=cifar10", "--strategy=last:1", "--limit_train=200", "--image_size=96", f"--run_dir={tmp_path / 'cifar'}"]
    assert main(["train", *common, *first]) == 0
    second = ["--dataset=oxford_iiit_pet", "--strategy=head", f"--weights={tmp_path / 'cifar'}", f"--run_dir={tmp_path / 'pets'}"]
    assert main(["train", *common, *second]) == 0
    assert "head      0 of 37 classes taken from the run" in capsys.readouterr().out
    result = run_directory.load_result(tmp_path / "pets")
    assert result["model"]["image_size"] == 96 and result["model"]["crop_fraction"] == 1.0
    frozen = [arrays_of(tmp_path / name)["conv_pw_13/kernel"] for name in ("cifar", "pets")]
    np.testing.assert_array_equal(*frozen)
    assert_same(values_of(weights.restore_model(tmp_path / "pets" / "delta.npz")), arrays_of(tmp_path / "pets"))
