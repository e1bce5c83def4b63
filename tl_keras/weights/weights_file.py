"""What is known of a file of weights."""

from dataclasses import dataclass

# Hex digits of a hash -> its algorithm. Eight are the beginning of a SHA-256.
ALGORITHMS = {0: "", 8: "sha256", 32: "md5", 64: "sha256"}
PREFIX_DIGITS = 8

Accuracy = tuple[float, ...]


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights.

    Attributes:
        variant: what `--weights` calls it.
        name: its name in the weights directory; other caches have it under the same.
        url: where it is fetched from; empty for the one that the package carries.
        hash: MD5 or SHA-256 in hex, or the first 8 digits of a SHA-256; empty where none is published.
        size: bytes; 0 where it is not known.
        top: whether a classifier lies in the file beside the backbone.
        licence: SPDX identifier of the licence of the weights.
        source: who publishes it: `keras`, `torchvision`, `augreg`, or `embedded`.
        normalization: key of NORMALIZATIONS that it was trained with; empty: that of the backbone's row.
        resize: shorter side in pixels to which test images were scaled; 0 where it is not published.
        crop: side in pixels of the centre crop after that; 0: the backbone's image size.
        interpolation: of that scaling.
        accuracy: top-1 and top-5 on ImageNet in percent, as published for this preprocessing; empty where not.
    """

    variant: str
    name: str
    url: str = ""
    hash: str = ""
    size: int = 0
    top: bool = False
    licence: str = "Apache-2.0"
    source: str = "embedded"
    normalization: str = ""
    resize: int = 0
    crop: int = 0
    interpolation: str = "bilinear"
    accuracy: Accuracy = ()

    @property
    def embedded(self) -> bool:
        """Whether the package carries the file."""
        return not self.url

    @property
    def algorithm(self) -> str:
        """The algorithm of the hash, a name that hashlib knows."""
        return ALGORITHMS[len(self.hash)]

    @property
    def hash_text(self) -> str:
        """The hash for a message."""
        if not self.hash:
            return "no hash is published"
        return f"{self.algorithm} {'beginning with ' if len(self.hash) == PREFIX_DIGITS else ''}{self.hash}"

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-NC-" in self.licence
