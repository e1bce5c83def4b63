"""The feature cache in whole runs: the results are those without it; what cannot be cached, sharing, budgets, resume, views."""

import json

import keras
import numpy as np
import pytest
from plain_config import PLAIN

from tl_keras import backbones, data
from tl_keras.config import RuntimeConfig
from tl_keras.data.sampling import TrainingOrder
from tl_keras.errors import ConfigError
from tl_keras.feature_cache import split_model, store
from tl_keras.feature_cache.planner import NumImages, Planner
from tl_keras.results import run_directory
from tl_keras.runs.fallbacks import EMBEDDED_SETTINGS
from tl_keras.runs.resolve import resolve
from tl_keras.runs.run import run
from tl_keras.runs.setup import build_model
from tl_keras.strategies import freezing
from tl_keras.training import runtime

SMALL = PLAIN.replace(
    dataset="digits", weights="none", fraction=0.1, limit_test=45, batch_size=32, epochs=3, learning_rate=0.02, precision="float32",
    save_model=False, cache="memory",
)  # fmt: skip
ALEXNET = SMALL.replace(**EMBEDDED_SETTINGS)
RESNET = SMALL.replace(backbone="resnet18", stem="cifar", image_size=32, limit_train=64, validation_fraction=0.05, epochs=2)
TINY = SMALL.replace(backbone="tiny")  # for what does not depend on the network; the whole of ALEXNET and RESNET is slow
MOBILENET = SMALL.replace(backbone="mobilenet_0.25", image_size=32)
TOLERANCE = 2e-5  # relative, of losses and logits: what folding BatchNorm changes in float32, grown over the steps of these runs


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Give each test a store and a cache directory of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store.shared_store.cache_clear()
    yield
    store.shared_store.cache_clear()


def run_both(config, directory, **cached):
    """Return (result, history, logits) of a run without the cache and of one with it."""
    outcomes = []
    for name, settings in (("plain", {"cache": "off"}), ("cached", cached)):
        result = run(config.replace(**settings), directory / name)
        with np.load(directory / name / "predictions.npz") as predictions:
            outcomes.append((result, run_directory.read_history(directory / name), predictions["logits"]))
    return outcomes


def assert_same(plain, cached, tolerance):
    """Assert bit-identical runs for a tolerance of 0; else accuracies may differ by three images."""
    for one, other in zip(plain[1], cached[1], strict=True):
        for name, num in (("accuracy", plain[0]["data"]["num_train"]), ("val_accuracy", plain[0]["data"]["num_validation"])):
            assert abs(float(other[name]) - float(one[name])) <= (tolerance > 0) * 3.001 / num, name
        for name in ("loss", "val_loss", "learning_rate"):
            assert float(other[name]) == pytest.approx(float(one[name]), rel=tolerance, abs=0), name
    np.testing.assert_allclose(cached[2], plain[2], rtol=tolerance, atol=tolerance * np.abs(plain[2]).max())
    assert [phase["audit"] for phase in cached[0]["phases"]] == [phase["audit"] for phase in plain[0]["phases"]]


def split_points(result):
    return [phase["cache"]["split_point"] for phase in result["phases"]]


@pytest.mark.parametrize(
    ("config", "strategy", "expected", "tolerance"),
    [
        (TINY, "last:1", ["stem"], 0),
        pytest.param(ALEXNET, "head", ["features"], 0, marks=pytest.mark.slow),
        pytest.param(ALEXNET, "last:1", ["fc6"], 0, marks=pytest.mark.slow),
        (TINY, "gradual", ["features", "stem", ""], 0),
        pytest.param(
            ALEXNET.replace(epochs=8),
            "gradual",
            ["features", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1", ""],
            0,
            marks=pytest.mark.slow,
        ),
        (ALEXNET.replace(frozen_mode="training"), "last:2", ["conv5"], 0),
        pytest.param(ALEXNET.replace(frozen_mode="training"), "head", ["conv5"], 0, marks=pytest.mark.slow),
        (TINY, "head", ["features"], 0),
        (TINY.replace(frozen_mode="training", eval_mode_after=1), "head", ["", "features"], 0),
        (TINY.replace(frozen_mode="training", eval_mode_after=2), "last:1", ["", "stem"], 0),
        (TINY.replace(head_dropout=0.5, eval_mode_after=1), "head", ["body", "features"], 0),
        (TINY.replace(batch_norm="inference"), "train:body/conv", ["stem"], 0),
        pytest.param(RESNET, "head", ["features"], 0, marks=pytest.mark.slow),
        pytest.param(RESNET, "last:1", ["layer3"], 0, marks=pytest.mark.slow),
        pytest.param(RESNET.replace(precision="mixed_bfloat16"), "head", ["features"], 3e-2, marks=pytest.mark.slow),
        (MOBILENET, "head", ["features"], TOLERANCE),
        pytest.param(
            MOBILENET.replace(image_size=96), "last:1", ["block4"], 1e-3, marks=pytest.mark.slow
        ),  # batch statistics enlarge a difference
    ],
)
def test_a_cached_run_equals_an_uncached_one(tmp_path, monkeypatch, config, strategy, expected, tolerance):
    if config.model.backbone == "mobilenet_0.25":  # Untrained, its output is constant unless BatchNorm is in training mode.
        monkeypatch.setattr("tl_keras.runs.setup.build_model", lambda *arguments: shaken(build_model(*arguments)))
    plain, cached = run_both(config.replace(strategy=strategy), tmp_path, cache="memory")
    assert split_points(plain[0]) == [""] * len(expected) and split_points(cached[0]) == expected
    assert_same(plain, cached, tolerance)
    assert cached[0]["test_cache"]["split_point"] == expected[-1]


@pytest.mark.parametrize(
    ("config", "settings", "reason"),
    [
        (TINY, {"strategy": "head", "frozen_mode": "training"}, "first stage"),
        (TINY, {"strategy": "batchnorm"}, "first stage"),
        (TINY, {"strategy": "bias"}, "first stage"),
        (TINY, {"strategy": "train:stem"}, "first stage"),
        (TINY, {"strategy": "full"}, "first stage"),
        (TINY, {"strategy": "lora:rank=2,targets=stem"}, "first stage"),
        (TINY, {"strategy": "head", "augmentation": "flip"}, "`cache_views=N`"),
        (TINY, {"strategy": "head", "augmentation": "flip+mixup", "cache_views": 2}, "mixes"),
        (TINY, {"strategy": "head", "cache": "off"}, "`cache=off`"),
    ],
)
def test_the_reason_is_recorded_and_printed_if_nothing_can_be_cached(tmp_path, capsys, config, settings, reason):
    result = run(config.replace(epochs=1, limit_train=64, limit_test=20, **settings), tmp_path / "run", verbose=2)
    record = result["phases"][0]["cache"]
    assert record["split_point"] == result["test_cache"].get("split_point", "") == "" and reason in record["reason"]
    assert f"not cached: {record['reason']}" in capsys.readouterr().out


def test_features_beyond_the_memory_budget_go_to_disk_or_are_not_cached(tmp_path):
    """1,230 images: 1,536 bytes each at `features`, 256 at conv5, and 3,136 at conv1, the only split if conv2 is trained."""
    large = ALEXNET.replace(fraction=0.9, limit_test=0, epochs=1, limit_train=600)
    for number, (cache, megabytes, strategy, split_point, storage) in enumerate([
        ("auto", 1, "head", "features", "disk"),
        ("memory", 2, "head", "features", "memory"),
        ("disk", 1, "head", "features", "disk"),
        ("memory", 1, "head", "conv5", "memory"),
        ("memory", 1, "train:conv2", "", ""),
    ]):  # fmt: skip
        store.shared_store.cache_clear()
        result = run(large.replace(cache=cache, cache_budget=megabytes, strategy=strategy), tmp_path / str(number))
        record, memory_bytes = result["phases"][0]["cache"], store.shared_store(store.cache_directory("")).memory_bytes
        assert (record["split_point"], record.get("storage", "")) == (split_point, storage)
        assert memory_bytes == (1230 * record["bytes_per_feature"] if storage == "memory" else 0) <= 10**6 * megabytes
    assert "cache_budget" in record["reason"]


def num_features(result):
    return [(part["features_computed"], part["features_reused"]) for part in (result["phases"][0]["cache"], result["test_cache"])]


def test_runs_share_the_features_that_do_not_differ(tmp_path):
    """Runs with other learning rates, seeds and fractions compute only missing features; another model computes its own."""
    config = ALEXNET.replace(strategy="head", epochs=1)
    first = run(config, tmp_path / "first")
    assert num_features(first) == [(130 + 130, 0), (45, 0)]
    assert num_features(run(config.replace(learning_rate=0.1, optimizer="adam"), tmp_path / "rate")) == [(0, 260), (0, 45)]
    larger = num_features(run(config.replace(fraction=0.2), tmp_path / "fraction"))
    assert larger == [(129, 260), (0, 45)]
    assert num_features(run(config.replace(image_size=70), tmp_path / "size"))[0][1] == 0
    assert num_features(run(config.replace(precision="mixed_bfloat16"), tmp_path / "dtype"))[0][1] == 0
    assert num_features(run(config.replace(weights="none"), tmp_path / "weights"))[0][1] == 0
    seed = num_features(run(config.replace(seed=1), tmp_path / "seed"))
    assert 0 < seed[0][1] < 260 and sum(seed[0]) == 260 and seed[1][1] > 0, "another split of the same images"


def test_processes_share_files(tmp_path):
    config = ALEXNET.replace(strategy="head", epochs=1, cache="disk", cache_dir=str(tmp_path / "files"))
    first = run(config, tmp_path / "first")
    store.shared_store.cache_clear()
    again = run(config, tmp_path / "again")
    assert num_features(first) == [(260, 0), (45, 0)] and num_features(again) == [(0, 260), (0, 45)]
    assert again["metrics"] == first["metrics"]
    identity = json.loads((tmp_path / "first" / "config.json").read_text())["identity"]
    assert not {"cache", "cache_budget", "cache_dir"} & identity.keys() and "cache_views" in identity


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


@pytest.mark.parametrize("kill_in", [1, *(pytest.param(epoch, marks=pytest.mark.slow) for epoch in (4, 5))])
def test_a_killed_run_resumes_bit_identically_within_and_between_phases(tmp_path, kill_in):
    config = TINY.replace(strategy="head_then_full:probe=4", epochs=6, optimizer="adam", learning_rate=1e-3)
    straight = run(config, tmp_path / "straight")
    with pytest.raises(Killed):
        run(config, tmp_path / "killed", callbacks=[Kill(kill_in)])
    store.shared_store.cache_clear()
    resumed = run(config, tmp_path / "killed")
    assert resumed["metrics"] == straight["metrics"]
    assert [phase["audit"] for phase in resumed["phases"]] == [phase["audit"] for phase in straight["phases"]]
    assert split_points(straight) == ["features", ""]


@pytest.mark.parametrize("storage", [pytest.param("memory", marks=pytest.mark.slow), "disk"])
def test_views_are_the_same_with_and_without_a_cache(tmp_path, storage):
    config = TINY.replace(strategy="head", augmentation="crop_flip", cache_views=2, epochs=5)
    plain, cached = run_both(config, tmp_path, cache=storage)
    assert split_points(cached[0]) == ["features"]
    assert_same(plain, cached, 0)
    assert cached[0]["phases"][0]["cache"]["features_computed"] == 2 * 130 + 130, "each view once, and validation as it is"


def test_a_run_of_at_most_num_views_epochs_equals_one_with_live_augmentation(tmp_path):
    config = TINY.replace(strategy="head", augmentation="crop_flip", selection="last")
    live = run(config, tmp_path / "live")
    views = run(config.replace(cache_views=3), tmp_path / "views")
    fewer = run(config.replace(cache_views=2), tmp_path / "fewer")
    assert views["metrics"] == live["metrics"] != fewer["metrics"]
    assert split_points(live) == [""] and split_points(views) == ["features"]


def test_balanced_classes_and_averaged_weights_are_cached_as_well(tmp_path):
    config = TINY.replace(strategy="head", sampling="balanced", keep="even:0.5", ema=0.9, accumulate_steps=2)
    plain, cached = run_both(config, tmp_path, cache="memory")
    assert split_points(cached[0]) == ["features"]
    assert_same(plain, cached, 0)


@pytest.mark.slow
def test_replicas_read_the_same_features(tmp_path):
    config = TINY.replace(strategy="head", distribution="mirrored")
    plain, cached = run_both(config, tmp_path, cache="memory")
    assert cached[0]["runtime"]["replicas"] == 2 and split_points(cached[0]) == ["features"]
    assert_same(plain, cached, 1e-6)


def small_examples(num=20):
    images = data.ImageStore(np.zeros((num, 2, 2, 3), np.uint8))
    return data.make_examples(images, np.zeros(num, np.int64)).subset(np.arange(num)[::-1])


def test_every_view_is_used_once_per_cycle_and_drawn_from_seed_cycle_and_image():
    examples, views = small_examples(), {}
    for epoch in range(9):
        order = TrainingOrder(examples, 4, num_views=3).epoch(epoch)
        views[epoch] = dict(zip(order.augmentation_ids.tolist(), order.views.tolist(), strict=True))
        if epoch < 3:
            assert set(views[epoch].values()) == {epoch}
        elif epoch % 3 == 0:
            assert len(set(views[epoch].values())) == 3, "images differ"
    for first in (0, 3, 6):
        for image in range(20):
            assert {views[epoch][image] for epoch in range(first, first + 3)} == {0, 1, 2}
    again = TrainingOrder(examples.subset(np.arange(5)), 4, num_views=3).epoch(7)
    assert all(views[7][name] == view for name, view in zip(again.augmentation_ids.tolist(), again.views.tolist(), strict=True))
    other = TrainingOrder(examples, 5, num_views=3).epoch(7)
    assert dict(zip(other.augmentation_ids.tolist(), other.views.tolist(), strict=True)) != views[7]


def classifier(name, **settings):
    keras.utils.set_random_seed(1)
    return shaken(backbones.build_classifier(name, 3, **settings))


def shaken(model):
    """Return `model` with BatchNorm statistics and parameters as after training."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("moving_mean", "beta"):
            weight.assign(random.normal(0, 0.3, weight.shape))
        elif weight.name in ("moving_variance", "gamma"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


NETWORKS = [
    ("resnet18", {"stem": "cifar", "image_size": 32}),
    ("mobilenet_0.25", {"image_size": 32}),
    ("alexnet_narrow", {"image_size": 63}),
]
MORE = [
    (name, {"image_size": 32})
    for name in (
        "resnet50",
        "resnet50_v2",
        "densenet121",
        "mobilenet_v2_0.35",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "efficientnet_lite0",
        "convnext_tiny",
        "vit_b16",
    )
]


@pytest.mark.parametrize(("name", "settings"), [*NETWORKS, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)])
def test_prefix_and_suffix_of_every_split_compute_the_model(name, settings):
    model = classifier(name, **settings)
    before = model.to_json()
    images = np.random.default_rng(0).uniform(0, 255, (3, *model.input_shape[1:])).astype("float32")
    expected = model(images, training=False)
    stages = [stage for stage, _ in backbones.get_backbone(name).stages]
    for name_of_split in dict.fromkeys([stages[0], stages[len(stages) // 2], stages[-1], "features"]):
        split = split_model.split_model(model, name, name_of_split)
        features = split.prefix(images, training=False)
        np.testing.assert_array_equal(split.suffix(features, training=False), expected)
        folded = split_model.fold_batch_norm(split.prefix)(images, training=False)
        np.testing.assert_allclose(folded, features, rtol=0, atol=1e-5 * np.abs(features).max())
        assert {id(weight) for weight in split.suffix.weights} <= {id(weight) for weight in model.weights}
    assert model.to_json() == before, "the model is unchanged"


@pytest.mark.parametrize(("name", "num_norms"), [("resnet18", 20), ("mobilenet_0.25", 27)])
def test_every_norm_after_a_convolution_is_folded(name, num_norms):
    prefix = split_model.split_model(classifier(name, image_size=32), name, "features").prefix
    norms = [
        sum(isinstance(layer, keras.layers.BatchNormalization) for layer in one_model.layers)
        for one_model in (prefix, split_model.fold_batch_norm(prefix))
    ]
    assert norms == [num_norms, 0]


def test_in_bfloat16_a_folded_model_agrees_to_rounding():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = classifier("resnet18", stem="cifar", image_size=32)
    prefix = split_model.split_model(model, "resnet18", "features").prefix
    run_time = runtime.make_runtime(RuntimeConfig(precision="mixed_bfloat16"), seed=0, batch_size=3, depthwise=False)
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    outputs = prefix(images, training=False), split_model.compile_prefix(prefix, run_time)(images)
    plain, folded = (np.asarray(features, np.float32) for features in outputs)
    assert 0 < np.abs(folded - plain).max() <= 2e-2 * np.abs(plain).max()


def test_kernels_are_cast_once_and_without_a_norm_nothing_else_changes():
    keras.config.set_dtype_policy("mixed_bfloat16")
    prefix = split_model.split_model(classifier("alexnet_narrow"), "alexnet_narrow", "features").prefix
    folded = split_model.fold_batch_norm(prefix)
    kernels = {weight.dtype for weight in folded.weights}
    assert kernels == {"bfloat16"} and {weight.dtype for weight in prefix.weights} == {"float32"}
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    plain, fast = (np.asarray(one_model(images, training=False), np.float32) for one_model in (prefix, folded))
    np.testing.assert_array_equal(plain, fast)


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_the_content_hash_identifies_what_a_model_computes(name, settings):
    model, again = classifier(name, **settings), classifier(name, **settings)
    prefix, other = (split_model.split_model(one_model, name, "features").prefix for one_model in (model, again))
    expected_hash = split_model.content_hash(prefix)
    assert split_model.content_hash(other) == expected_hash, "rebuilt"
    model.get_layer("logits").bias.assign([1, 2, 3])
    assert split_model.content_hash(prefix) == expected_hash, "the head is not part of the prefix"
    first_stage = backbones.get_backbone(name).stages[0][0]
    assert split_model.content_hash(split_model.split_model(model, name, first_stage).prefix) != expected_hash
    weight = prefix.weights[-1]
    weight.assign(weight + 1e-3)
    assert split_model.content_hash(prefix) != expected_hash
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert split_model.content_hash(split_model.split_model(classifier(name, **settings), name, "features").prefix) != expected_hash


@pytest.mark.parametrize(
    ("config", "strategy", "frozen_mode", "expected"),
    [
        (ALEXNET, "head", "inference", 7),
        (ALEXNET, "head", "training", 5),
        (ALEXNET, "train:conv4", "training", 3),
        (ALEXNET, "bias", "inference", 0),
        (RESNET, "last:2", "inference", 3),
        (RESNET, "last:2", "training", 0),
    ],
)
def test_the_frozen_prefix_of_a_phase(config, strategy, frozen_mode, expected):
    phase = resolve(config.replace(strategy=strategy, frozen_mode=frozen_mode)).phases[0]
    model = backbones.build_classifier(config.model.backbone, 3, image_size=config.model.image_size, stem=config.model.stem)
    stages = backbones.stage_layers(model, config.model.backbone)
    assert freezing.frozen_prefix(stages, phase) == list(stages)[:expected]


def test_features_are_not_cached_behind_dropout_of_the_head():
    """VGG16 has dropout between its last stage and the logits: the suffix begins before it, and a grid of heads is refused."""
    model = classifier("tiny")
    dropped = keras.layers.Dropout(0.5)(model.get_layer("logits").input)
    with_dropout = keras.Model(model.input, keras.layers.Dense(3, name="logits")(dropped))
    config = SMALL.replace(backbone="tiny", strategy="head")
    phases = resolve(config).phases
    planners = [Planner(config, one, backbones.stage_layers(one, "tiny"), phases, NumImages(10, 0, 0)) for one in (model, with_dropout)]
    plain, behind_dropout = (planner.choose(phases[-1])[0].split_point.name for planner in planners)
    assert (plain, behind_dropout) == ("features", "body")
    split = split_model.split_model(with_dropout, "tiny", behind_dropout)
    assert [type(layer).__name__ for layer in split.suffix.layers][-2:] == ["Dropout", "Dense"]
    with pytest.raises(ConfigError, match="has dropout before the logits"):
        planners[1].choose_features(10)
