"""Features of images for search and clustering: what the head of a model sees, in a file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tl_keras.data.folder_layout import read_layout
from tl_keras.data.image_inputs import Images
from tl_keras.errors import ConfigError
from tl_keras.runs.predict import Predictor, Progress, no_progress
from tl_keras.utils.files import write_npz
from tl_keras.utils.text import printable


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of images, in their order.

    Attributes:
        features: float32 (n, channels).
        files: path of each image; for arrays `image 0`, `image 1`, ...
        labels: class of each image, as its folder has it; empty for images that lie in no folder of classes.
        skipped: file -> reason why it has no features.
    """

    features: np.ndarray
    files: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write `features`, `files` and, if an image has one, `labels` to an `.npz` file. Nothing in it is pickled."""
        labels = {"labels": np.array(self.labels, np.str_)} if any(self.labels) else {}
        files = np.array([printable(file) for file in self.files], np.str_)
        write_npz(path, {"features": self.features, "files": files, **labels})


def embed_images(
    predictor: Predictor, images: Images, *, batch_size: int = 32, on_corrupt: str = "error", on_progress: Progress = no_progress
) -> Embeddings:
    """Return the features of images before the head, with their files and labels.

    Args:
        predictor: of a run or its `model.keras`.
        images, batch_size, on_corrupt, on_progress: as those of `Predictor.predict`.

    Raises:
        ConfigError: The model is an export, which has no features.
    """
    classifier, skipped = predictor.classifier("features"), dict[str, str]()
    files: list[str] = []
    parts = [np.zeros((0, classifier.num_features), np.float32)]
    for batch in predictor.batches(images, skipped, batch_size=batch_size, on_corrupt=on_corrupt, on_progress=on_progress):
        files += batch.names
        parts.append(classifier.features(batch.inputs))
    labels = _labels_of_folders(images)
    return Embeddings(np.concatenate(parts), tuple(files), tuple(labels.get(file, "") for file in files), skipped)


def _labels_of_folders(images: Images) -> dict[str, str]:
    """Return file -> class of the directories among `images` that have a folder for each class."""
    given = [images] if isinstance(images, str | Path | np.ndarray) else images
    labels: dict[str, str] = {}
    for item in given:
        if not isinstance(item, np.ndarray) and (root := Path(item).expanduser()).is_dir():
            labels |= _labels_in(root)
    return labels


def _labels_in(root: Path) -> dict[str, str]:
    try:
        layout = read_layout(root, allow_links=True)
    except ConfigError:
        return {}
    return {str(file.path): layout.class_names[file.label] for file in layout.files}
