"""What the package carries is what its scripts make."""

import numpy as np
import pytest

from tl_keras import backbones, data, weights
from tl_keras.config import DataConfig
from tl_keras.data.pipeline import evaluation_batches
from tools import make_embedded_weights

MAX_BYTES = 8e6


def glyph_accuracy(path) -> float:
    """Accuracy of the weights in `path` on the glyphs held out from their training."""
    source = data.load_source(DataConfig(dataset="glyphs"))
    model = backbones.build_classifier("alexnet_narrow", len(source.class_names))
    assert weights.load_weights(model, "alexnet_narrow", path)["left_out"] == {}
    batches = evaluation_batches(source.test, image_size=64, crop_fraction=1.0, batch_size=310)
    return float(np.mean([(model(images).numpy().argmax(axis=1) == labels.numpy()).mean() for images, labels, _ in batches]))


def test_the_embedded_weights_know_glyphs():
    assert make_embedded_weights.OUTPUT.stat().st_size <= MAX_BYTES
    assert weights.locate("alexnet_narrow", "glyphs") == make_embedded_weights.OUTPUT
    assert glyph_accuracy(make_embedded_weights.OUTPUT) >= 0.8


@pytest.mark.slow
def test_the_embedded_weights_are_what_the_script_makes(tmp_path):
    """Trained anew, by seed. Another processor rounds otherwise, and a thousand steps amplify that: so to a tolerance."""
    made, accuracy = make_embedded_weights.make(tmp_path / "run")
    with np.load(make_embedded_weights.OUTPUT) as shipped:
        assert set(shipped.files) == set(made)
        for path, array in made.items():
            one, other = array.astype("float64").ravel(), shipped[path].astype("float64").ravel()
            assert np.corrcoef(one, other)[0, 1] > 0.9, path
    assert accuracy == pytest.approx(glyph_accuracy(make_embedded_weights.OUTPUT), abs=0.03)
