"""Write tl_keras/data/embedded/digits.npz from the handwritten digits of scikit-learn.

    make embedded        # or: python tools/make_digits.py [--output=FILE]

The data set has 1,797 images of 8 x 8 pixels with values 0..16. It is the test part of "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0), as distributed with scikit-learn
(BSD 3-Clause). 500 images, stratified, with seed 0, are the test split.
"""

import argparse
from pathlib import Path

import numpy as np

from tl_keras.data.stratified import stratified_order
from tl_keras.utils.files import write_npz

OUTPUT = Path(__file__).parents[1] / "tl_keras" / "data" / "embedded" / "digits.npz"
NUM_TEST = 500


def make() -> dict[str, np.ndarray]:
    """Return `images` uint8 (1797, 8, 8) in 0..16, `labels` uint8 (1797,) and `is_test` bool (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(np.uint8)
    is_test = np.zeros(len(labels), bool)
    is_test[stratified_order(labels, seed=0)[:NUM_TEST]] = True
    return {"images": digits.images.astype(np.uint8), "labels": labels, "is_test": is_test}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    write_npz(output, make(), compress=True)
    print(f"{output}: {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
