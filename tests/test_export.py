"""Exports: the images that they take, their probabilities, and the refusal of one that differs from its run."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tl_keras.cli import verbs
from tl_keras.errors import ConfigError
from tl_keras.runs import export
from tl_keras.runs.run import run


@pytest.fixture(scope="module")
def run_dir(tiny_config, tmp_path_factory):
    """A bicubic run in bfloat16, so that the export is seen to compute in float32."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    run(tiny_config.replace(precision="mixed_bfloat16", crop_fraction=0.875, interpolation="bicubic"), directory)
    return directory


REUSE = """
import sys
sys.modules["tl_keras"] = None
import numpy as np, keras, tensorflow as tf
path = sys.argv[1]
{load}
for shape in [(8, 8), (70, 33), (500, 401)]:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    output = np.asarray(model(images))
    assert output.shape == (2, 10) and output.dtype == np.float32 and abs(output.sum(axis=1) - 1).max() < 1e-5, output
"""


@pytest.mark.parametrize("format", export.FORMATS)
def test_an_export_takes_any_size_without_tl_keras(format, run_dir, tmp_path, capsys):
    output = tmp_path / "exported"
    assert verbs.main(["export", f"--run_dir={run_dir}", f"--format={format}", f"--output={output}"]) == 0
    assert "largest difference in probability" in capsys.readouterr().out
    labels = json.loads((output / "labels.json").read_text())
    assert {path.name for path in output.iterdir()} == {labels["model"], "labels.json"}
    assert labels["class_names"] == list("0123456789") and labels["embedded"] and labels["num_images"] == 64
    assert 0 <= labels["max_difference"] < export.TOLERANCE
    script = REUSE.format(load=export.FORMATS[format][1])
    done = subprocess.run([sys.executable, "-c", script, str(output / labels["model"])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_different_model_is_refused_and_leaves_nothing(run_dir, tmp_path, monkeypatch):
    real = export.export
    monkeypatch.setattr(export, "export", lambda model, geometry: real(model, replace(geometry, interpolation="bilinear")))
    with pytest.raises(export.ExportError, match="differs from the trained one"):
        export.export_run(run_dir, "keras", tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_output_must_be_new_and_the_run_finished(run_dir, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConfigError, match="new or empty"):
        export.export_run(run_dir, "keras", tmp_path / "used")
    with pytest.raises(ConfigError, match="holds no run"):
        export.export_run(tmp_path, "keras", tmp_path / "new")
    with pytest.raises(ConfigError, match="Known: keras, saved_model"):
        export.export_run(run_dir, "pickle", tmp_path / "new")


def test_float32_copy_has_the_weights_and_no_other_precision(run_dir):
    import keras

    model = keras.models.load_model(run_dir / "model.keras", compile=False)
    copy = export._in_float32(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
