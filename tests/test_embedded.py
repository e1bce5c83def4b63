"""The bundled weights are those that `tools/make_embedded_weights.py` makes."""

import numpy as np
import pytest

from tl_keras import backbones, data, weights
from tl_keras.config import DataConfig
from tl_keras.data.geometry import Geometry
from tl_keras.data.pipeline import evaluation_batches
from tools import make_embedded_weights

MAX_BYTES = 8e6


def glyph_accuracy(path) -> float:
    """Return the accuracy of the weights in `path` on the glyphs of the test split."""
    source = data.load_source(DataConfig(dataset="glyphs"))
    model = backbones.build_classifier("alexnet_narrow", len(source.class_names))
    assert weights.load_weights(model, "alexnet_narrow", path).missing == {}
    batches = evaluation_batches(source.test, Geometry(64, 1.0), batch_size=310)
    return float(np.mean([(model(images).numpy().argmax(axis=1) == labels.numpy()).mean() for images, labels, _ in batches]))


def test_the_embedded_weights_classify_glyphs():
    assert make_embedded_weights.OUTPUT.stat().st_size <= MAX_BYTES
    assert weights.find_weights_file("alexnet_narrow", "glyphs") == make_embedded_weights.OUTPUT
    assert glyph_accuracy(make_embedded_weights.OUTPUT) >= 0.8


@pytest.mark.slow
def test_the_script_makes_the_embedded_weights(tmp_path):
    """Train again with the same seed. Processors round differently, and a thousand steps amplify that: hence the tolerance."""
    retrained, accuracy = make_embedded_weights.make(tmp_path / "run")
    with np.load(make_embedded_weights.OUTPUT) as bundled:
        assert set(bundled.files) == set(retrained)
        for path, array in retrained.items():
            values, expected = array.astype("float64").ravel(), bundled[path].astype("float64").ravel()
            assert np.corrcoef(values, expected)[0, 1] > 0.9, path
    assert accuracy == pytest.approx(glyph_accuracy(make_embedded_weights.OUTPUT), abs=0.03)
