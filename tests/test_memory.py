"""The memory of a process that trains many models, and the gradients that TensorFlow registers for the rest of a process."""

import gc

import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import ops

from tl_keras.training.gradient_registry import PREFIX, free_custom_gradients
from tools.memory_growth import live_objects, train_runs

MB = 2**20
WARM_UP, MEASURED = 2, 2


def build_wide(x):
    """A backbone whose dense layer has 8.4 million weights, 32 MiB: much for the allocator, little to compute."""
    x = layers.Conv2D(64, 3, 2, padding="same", activation="silu", name="stem_out")(x)
    return layers.Dense(2048, name="body_out")(layers.Flatten()(x))


def test_runs_in_one_process_grow_by_less_than_one_model(tiny_config, tmp_path, monkeypatch):
    """Without a mend each run leaves its weights and its momentum, twice the model."""
    monkeypatch.setattr("tl_keras.backbones.tiny.build", build_wide)
    base = tiny_config.replace(image_size=16, epochs=1, limit_train=32, limit_test=16, save_model=False, fraction=1.0)
    resident, counts = [], []
    for row in train_runs(base, WARM_UP + MEASURED, tmp_path):
        resident.append(row["resident"])
        counts.append(live_objects())
    model = 4 * row["parameters"]
    assert model > 32 * MB
    assert all(counts[-1][name] <= counts[WARM_UP - 1][name] for name in counts[-1])
    assert resident[-1] - resident[WARM_UP - 1] < model


def test_runs_on_several_replicas_leave_no_model(tiny_config, tmp_path):
    """MirroredStrategy keeps every tf.function that it is given."""
    base = tiny_config.replace(epochs=1, limit_train=32, limit_test=16, save_model=False, fraction=1.0, distribution="mirrored")
    first, second = [live_objects() for _ in train_runs(base, 2, tmp_path)]
    assert all(second[name] <= first[name] for name in first)


def registered() -> set[str]:
    return {name for name in ops.gradient_registry.list() if name.startswith(PREFIX)}


def trace_silu(variable: tf.Variable) -> tf.types.experimental.ConcreteFunction:
    """Return a traced function x -> silu(variable * x), whose gradient is a custom one."""
    return tf.function(lambda x: tf.nn.silu(variable * x)).get_concrete_function(tf.TensorSpec((2,)))


def test_a_function_that_outlives_the_block_has_its_gradient_until_it_is_freed():
    variable, x, before = tf.Variable(2.0), tf.constant([0.5, -1.0]), registered()
    with free_custom_gradients():
        function = trace_silu(variable)
    gc.collect()
    (name,) = registered() - before
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    sigmoid = 1 / (1 + np.exp([-1.0, 2.0]))
    np.testing.assert_allclose(tape.gradient(y, x), 2 * sigmoid * (1 + np.array([1.0, -2.0]) * (1 - sigmoid)), rtol=1e-6)
    del function, tape, y
    gc.collect()
    assert name not in registered()


def test_functions_of_other_code_are_left_alone():
    before = registered()
    function = trace_silu(tf.Variable(2.0))
    with free_custom_gradients():
        (name,) = registered() - before
    del function
    gc.collect()
    assert name in registered()  # as TensorFlow leaves it
