"""Exports in new environments that have one runtime, NumPy and Pillow, and nothing else: run by `make test-exports`.

The programs are those of the model cards. Images of three sizes go through the `preprocess.py` of an export, or into a model that
resizes, and the probabilities are compared with those of the trained model.
"""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras.exports.export import write_export
from tl_keras.exports.formats import FORMATS
from tl_keras.exports.trained import TrainedRun

ENVIRONMENTS = {
    "keras": ["tensorflow", "keras"],
    "saved_model": ["tensorflow", "keras"],
    "onnx": ["onnxruntime"],
    "litert": ["ai-edge-litert"],
    "openvino": ["openvino"],
}
ALWAYS = ["numpy", "pillow"]
ABSENT = {"tl_keras", "onnxruntime", "onnx", "ai_edge_litert", "openvino", "tensorflow", "keras"}  # but for the runtime itself
SIZES = [(8, 8), (70, 33), (401, 500)]

pytestmark = pytest.mark.environments

OPEN = {
    True: "import numpy as np\nfrom PIL import Image\nimages = np.asarray(Image.open('image.png').convert('RGB'))[None]\n",
    False: "",
}


def requirements() -> dict[str, str]:
    """Return the requirement of each package in setup.cfg, by its name."""
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[1] / "setup.cfg")
    lines = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return {name.group(): line for text in lines for line in text.split("\n") if (name := re.match(r"[\w-]+(?=[<>=])", line))}


@pytest.fixture(scope="module")
def python_of(tmp_path_factory):
    """A function from packages to the interpreter of a new environment that has these, NumPy and Pillow."""
    environments = {}

    def create(*packages):
        if packages not in environments:
            directory = tmp_path_factory.mktemp("environment")
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            python, known = str(directory / "bin" / "python"), requirements()
            wanted = [known[name] for name in (*packages, *ALWAYS)]
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
            environments[packages] = python
        return environments[packages]

    return create


@pytest.fixture(scope="module")
def trained(finished_run):
    random = np.random.default_rng(0)
    loaded = TrainedRun.load(finished_run.directory, calibrated=True, data_settings={}, with_data=False)
    return loaded, [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_runs_with_its_runtime_alone(format, trained, python_of, tmp_path):
    (loaded, images), known = trained, FORMATS[format]
    write_export(loaded, known, "none", tmp_path / "export")
    usage = (
        (tmp_path / "export" / "README.md").read_text().partition("```python\n")[2].partition("```")[0].replace("image.jpg", "image.png")
    )
    script = f"{OPEN[known.takes_any_size]}{usage}\nimport numpy\nnumpy.save('received.npy', numpy.asarray(probabilities))\n"
    python = python_of(*ENVIRONMENTS[format])
    inputs = loaded.resized(images) if known.takes_any_size else np.stack([loaded.prepare(image) for image in images]).astype(np.float32)
    for image, expected in zip(images, loaded.probabilities(inputs), strict=True):
        Image.fromarray(image).save(tmp_path / "export" / "image.png")
        done = subprocess.run([python, "-c", script], cwd=tmp_path / "export", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        received = np.load(tmp_path / "export" / "received.npy")
        assert received.shape == (1, 10)
        np.testing.assert_allclose(received[0], expected, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_its_environment_has_nothing_else(format, python_of):
    own = {name.replace("-", "_") for name in ENVIRONMENTS[format]}
    script = "import sys, importlib.util\nprint([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    python = python_of(*ENVIRONMENTS[format])
    done = subprocess.run([python, "-c", script, *sorted(ABSENT - own)], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"
