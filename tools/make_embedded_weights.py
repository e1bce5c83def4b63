"""Makes the weights that the package bundles: a narrow AlexNet trained on glyphs rendered from matplotlib's fonts.

    make embedded        # or: python tools/make_embedded_weights.py [--output=FILE]

This is a normal run with the configuration below. The same command makes the same weights, up to the rounding of the
processor. They are stored as float16 by variable path, including the head.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tl_keras.config import RunConfig
from tl_keras.utils.files import atomic_write

CONFIG = RunConfig().replace(
    dataset="glyphs",
    backbone="alexnet_narrow",
    weights="none",
    augmentation="none",
    strategy="full",
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=0.0,
    schedule="cosine",
    warmup_epochs=1,
    epochs=12,
    batch_size=128,
    selection="last",
    precision="float32",
    xla="off",
    seed=0,
)
OUTPUT = Path(__file__).parents[1] / "tl_keras" / "weights" / "embedded" / "alexnet_narrow_glyphs.npz"


def make(directory: Path) -> tuple[dict[str, np.ndarray], float]:
    """Train in `directory`. Return the weights, float16 by variable path, and the accuracy on the glyphs of the test split."""
    import keras

    from tl_keras.runs.run import run

    result = run(CONFIG, directory, verbose=2)
    model = keras.models.load_model(directory / "model.keras", compile=False)
    return {weight.path: weight.numpy().astype(np.float16) for weight in model.weights}, result["metrics"]["test"]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as temporary:
        weights, accuracy = make(Path(temporary) / "run")
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as path, open(path, "wb") as file:
        np.savez_compressed(file, **weights)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, accuracy on held-out glyphs {100 * accuracy:.2f} %")


if __name__ == "__main__":
    main()
