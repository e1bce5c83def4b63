"""Parts of a start-up: the packages that are imported before training, and functions that are traced once."""

import subprocess
import sys

import pytest
import tensorflow as tf

from tl_keras.training.tracing import AnyBatchSize


def test_a_run_is_prepared_without_tensorflow_scipy_and_matplotlib():
    code = "import sys, tl_keras.runs.run; print(sorted({'tensorflow', 'keras', 'scipy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("jit_compile", [None, True])
def test_a_function_is_traced_once_for_all_batch_sizes_and_once_more_for_the_other_bool(jit_compile):
    @tf.function(jit_compile=jit_compile, reduce_retracing=True, autograph=False)
    def scale(images, factor, negative):
        return images * (-factor if negative else factor)

    call = AnyBatchSize(scale)
    for size in (4, 4, 3, 1):
        images = tf.reshape(tf.range(2.0 * size), (size, 2))
        assert (call(images, tf.constant(3.0), False).numpy() == 3 * images.numpy()).all()
    assert scale.experimental_get_tracing_count() == 1
    assert call(tf.ones((2, 2)), tf.constant(3.0), True).numpy().tolist() == [[-3.0, -3.0]] * 2
    assert call(tf.ones((5, 2)), tf.constant(3.0), True).shape == (5, 2)
    assert scale.experimental_get_tracing_count() == 2


def test_images_of_another_size_are_traced_again():
    call = AnyBatchSize(tf.function(lambda images: tf.reduce_sum(images, axis=[1, 2]), reduce_retracing=True, autograph=False))
    for shape in ((2, 3, 4), (5, 3, 4), (2, 6, 4)):
        assert call(tf.ones(shape)).numpy().tolist() == [shape[1] * shape[2]] * shape[0]
    assert call.function.experimental_get_tracing_count() == 2
