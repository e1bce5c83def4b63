"""What the package carries, so that a machine without network still shows an experiment; marked wherever its figures stand."""

from types import MappingProxyType
from typing import Any

from tl_keras.config import RunConfig
from tl_keras.errors import MissingError

# The embedded version of an experiment takes all of it, never a mixture.
EMBEDDED_SETTINGS = MappingProxyType(
    {
        "dataset": "digits",
        "data_dir": "",
        "label": "label",
        "crop_fraction": 0.0,
        "backbone": "alexnet_narrow",
        "weights": "glyphs",
        "weights_dir": "",
        "stem": "imagenet",
        "image_size": 0,
        "normalization": "weights",
    }
)

# Digits for photographs of pets: the questions about species and kept shares can be asked of odd and even digits.
DIGITS = MappingProxyType({"dataset": "digits", "data_dir": ""})
DIGIT_LABELS = MappingProxyType({"species": "parity"})
DIGIT_GROUPS = MappingProxyType({"cat": "even", "dog": "odd"})

EMBEDDED_NOTICE = """
{error}

*** STAND-INS ***  The experiment runs on what the package carries instead. Its figures are NOT comparable with the reported ones,
and every table, plot and directory of it says so. Part A has an embedded version: handwritten digits and a narrow AlexNet that was
pre-trained on rendered glyphs; of other flags than --fractions, --rows, --seeds and --runs_dir it takes none. In the other
experiments digits stand in for the images that are missing, and new random weights for the pre-trained ones.
"""


def stand_ins_of(config: RunConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that let `config` run with what is at hand, and what they stand in for, in words."""
    from tl_keras.runs.setup import load_source, locate_weights

    settings, notes = {}, []
    try:
        locate_weights(config)
    except MissingError:
        settings["weights"] = "none"
        notes.append(f"random weights for {config.model.weights}")
    try:
        load_source(config.data)
    except MissingError:
        settings |= {**DIGITS, "label": DIGIT_LABELS.get(config.data.label, "label"), "keep": _digit_groups(config.data.keep)}
        notes.append(f"digits for {config.data.dataset}")
    return settings, tuple(notes)


def _digit_groups(keep: str) -> str:
    for name, group in DIGIT_GROUPS.items():
        keep = keep.replace(f"{name}:", f"{group}:")
    return keep
