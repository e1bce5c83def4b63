"""Fallbacks: bundled replacements of missing data and weights, so that experiments also run offline.

Results with fallbacks are marked wherever they are shown.
"""

from types import MappingProxyType
from typing import Any

from tl_keras.config import RunConfig, unused_settings
from tl_keras.data import parse_keep
from tl_keras.errors import MissingError

# The embedded version of an experiment uses all of these settings together.
EMBEDDED_SETTINGS = MappingProxyType(
    {
        "dataset": "digits",
        **unused_settings("digits"),
        "data_dir": "",
        "label": "label",
        "crop_fraction": 0.0,
        "interpolation": "weights",
        "backbone": "alexnet_narrow",
        "weights": "glyphs",
        "weights_dir": "",
        "stem": "imagenet",
        "image_size": 0,
        "normalization": "weights",
    }
)

# Digits replace photographs of pets: even and odd digits replace cats and dogs. A list of breeds is replaced by one of the two.
DIGITS = MappingProxyType({"dataset": "digits", "data_dir": "", **unused_settings("digits")})
DIGIT_LABELS = MappingProxyType({"species": "parity"})
DIGIT_GROUPS = MappingProxyType({"cat": "even", "dog": "odd"})
NUM_BREEDS = 37

EMBEDDED_NOTICE = """
{error}

*** FALLBACKS ***  Bundled data and weights replace the missing ones. Results are NOT comparable with the published ones and are
marked as such everywhere. Part A has a bundled version: a narrow AlexNet, pre-trained on rendered glyphs, learns handwritten digits.
It accepts only `fractions`, `rows`, `seeds` and `runs_dir`. In the other experiments, digits replace missing images, and random
weights replace missing weights.
"""


def fallbacks_for(config: RunConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings that replace what `config` lacks, and a description of each replacement, e.g. `digits for cifar10`."""
    from tl_keras.runs.resolve import load_source, locate_weights

    settings, descriptions = {}, []
    try:
        locate_weights(config)
    except MissingError:
        settings["weights"] = "none"
        descriptions.append(f"random weights for {config.model.weights}")
    try:
        load_source(config.data)
    except MissingError:
        settings |= {**DIGITS, "label": DIGIT_LABELS.get(config.data.label, "label"), "keep": _digit_groups(config.data.keep)}
        descriptions.append(f"digits for {config.data.dataset}")
    return settings, tuple(descriptions)


def _digit_groups(keep: str) -> str:
    """Return the setting `keep` for digits.

    A list of breeds becomes the even digits, or the odd ones if it names more than half of the breeds, at the fraction of its first.
    """
    fractions = parse_keep(keep)
    if fractions and not fractions.keys() <= DIGIT_GROUPS.keys():
        group = "even" if 2 * len(fractions) < NUM_BREEDS else "odd"
        return f"{group}:{next(iter(fractions.values())):g}"
    return ",".join(f"{DIGIT_GROUPS[name]}:{fraction:g}" for name, fraction in fractions.items())
