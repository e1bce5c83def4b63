"""Measures why AdamW at learning rate 1e-3 destroys a pre-trained ResNet50, and what prevents it.

    KERAS_HOME=DIR python -m tools.adamw_collapse --data_dir=DIR [--seeds 0 1 2] [--rows ROW ...]

The model is MobileNet 0.75 on 240 photographs of three pet breeds, with the settings of source report D: the last 3 stages and the
head, BatchNorm in training mode, weight decay 0.001, 5 epochs of 15 updates. MobileNet's kernels are larger than those of a ResNet.
All rows but `as trained` therefore start with each kernel scaled to a root mean square of 0.02, which He's formula gives for a 3x3
convolution of 512 channels. Statistics and epsilon of its BatchNorm are scaled with it, so the model computes the same function.

Columns for the kernels before the head: the fraction of their components that the first update moves by more than half the learning
rate; and the median over kernels of the norm of an update over the norm of the kernel, in the first and in the tenth update. Then
the cosine between features before training and after epoch 1; the validation accuracy after epoch 1 with running statistics and
with those of the validation batch; the largest validation loss; and the lowest and the last validation accuracy.

Measured, as means over seeds 0 to 2 on 60 validation images, in float32 on a CPU; values vary by some points between runs:

    row                                      update 1  cosine  val 1  lowest  last
    AdamW 1e-3, as trained                     0.59 %    0.51   85.0    84.4  93.9
    SGD 1e-3                                   0.83 %    0.30   60.0    58.3  80.0
    AdamW 1e-3                                 5.00 %    0.39   67.8    63.9  87.2
    AdamW 1e-3, warm-up 2                      0.16 %    0.53   82.8    72.8  79.5
    AdamW 1e-4                                 0.50 %    0.68   78.3    78.3  92.8
    AdamW 1e-3, all stages, layer_decay 0.3    0.45 %    0.66   87.8    87.8  92.2
"""

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras import backbones, data, strategies, weights
from tl_keras.config import RunConfig
from tl_keras.data import pipeline
from tl_keras.data.geometry import Geometry
from tl_keras.training import losses
from tl_keras.training.optimizers import has_weight_decay
from tl_keras.training.runtime import make_runtime
from tl_keras.training.trainer import Batches, Trainer

BACKBONE, SIZE, BATCH, HE_SCALE = "mobilenet_0.75", 96, 16, 0.02
BASE = {"strategy": "last:3", "frozen_mode": "training", "epochs": 5, "batch_size": BATCH, "selection": "last", "precision": "float32"}
SGD = {"optimizer": "sgd", "nesterov": True}
ADAMW = {"optimizer": "adamw", "weight_decay": 1e-3}
ROWS: Mapping[str, dict[str, Any]] = {
    "AdamW 1e-3, as trained": ADAMW,
    "SGD 1e-3": SGD,
    "AdamW 1e-3": ADAMW,
    "AdamW 1e-3, warm-up 2": ADAMW | {"warmup_epochs": 2.0},
    "AdamW 1e-3, clip 0.1": ADAMW | {"clip_norm": 0.1},
    "AdamW 1e-3, EMA 0.9": ADAMW | {"ema": 0.9},
    "AdamW 1e-3, all stages, layer_decay 0.3": ADAMW | {"strategy": "layer_decay:0.3"},
    "AdamW 3e-4": ADAMW | {"learning_rate": 3e-4},
    "AdamW 1e-4": ADAMW | {"learning_rate": 1e-4},
    "AdamW 1e-4, cosine": ADAMW | {"learning_rate": 1e-4, "warmup_epochs": 1.0, "schedule": "cosine"},
}
HEADER = (
    "| row | seed | moved by > rate/2 | update 1 | update 10 | cosine | val 1 | val 1, batch | worst loss | lowest | last |\n"
    + "|---" * 11
    + "|"
)

Arrays = tuple[np.ndarray, np.ndarray]


def read(examples: data.Examples) -> Arrays:
    """Return images float32 (n, 96, 96, 3) and labels int32 (n,)."""
    batches = pipeline.evaluation_batches(examples, Geometry(SIZE, 0.875), batch_size=BATCH)
    images, labels, _ = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def build(num_classes: int, *, scale: bool) -> keras.Model:
    """Return the pre-trained model with PyTorch's momentum of BatchNorm. `scale` scales its kernels and keeps its function."""
    model = backbones.build_classifier(BACKBONE, num_classes, image_size=SIZE)
    weights.load_weights(model, BACKBONE, weights.find_weights_file(BACKBONE, "imagenet", ""))
    for layer, norm in zip(model.layers, model.layers[1:], strict=False):
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.momentum = 0.9
            kernel = layer.weights[0].numpy()
            factor = float(HE_SCALE / np.sqrt(np.mean(kernel**2))) if scale else 1.0
            layer.weights[0].assign(factor * kernel)
            norm.moving_mean.assign(factor * norm.moving_mean.numpy())
            norm.moving_variance.assign(factor**2 * norm.moving_variance.numpy())
            norm.epsilon *= factor**2
    return model


@contextlib.contextmanager
def batch_statistics(model: keras.Model) -> Any:
    """Restore the running statistics after the block, in which BatchNorm normalizes with the batch."""
    initial = {v.path: v.numpy() for v in model.non_trainable_variables}
    yield
    for variable in model.non_trainable_variables:
        variable.assign(initial[variable.path])


class Probe(keras.callbacks.Callback):
    """Measures the updates of `kernels`, and features and accuracy on `validation` after the first epoch."""

    def __init__(self, kernels: list[keras.Variable], validation: Arrays):
        super().__init__()
        self._kernels, (self._images, self._labels) = kernels, validation
        self.updates: list[float] = []
        self.values: dict[str, float] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self._features = backbones.feature_extractor(self.model)
        self._before = self._features(self._images, training=False).numpy()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._old = [kernel.numpy() for kernel in self._kernels]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = [kernel.numpy() - old for kernel, old in zip(self._kernels, self._old, strict=True)]
        self.updates.append(float(np.median([np.linalg.norm(s) / np.linalg.norm(old) for s, old in zip(steps, self._old, strict=True)])))
        learning_rate = float(self.model.optimizer.learning_rate.numpy())
        self.values.setdefault("moved", float(np.mean(np.concatenate([np.abs(s).ravel() for s in steps]) > learning_rate / 2)))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch:
            return
        after = self._features(self._images, training=False).numpy()
        norms = np.linalg.norm(after, axis=1) * np.linalg.norm(self._before, axis=1)
        self.values["cosine"] = float(np.mean((after * self._before).sum(axis=1) / norms))
        with batch_statistics(self.model):
            logits = np.asarray(self.model(self._images, training=True))
        self.values["batch"] = float(np.mean(logits.argmax(axis=1) == self._labels))


def measure(label: str, settings: Mapping[str, Any], train: Arrays, validation: Arrays, num_classes: int, seed: int) -> tuple[str, str]:
    """Return the line of the table for a row, and the collapse warning of the trainer."""
    config = RunConfig().replace(**BASE | dict(settings))
    runtime = make_runtime(config.runtime, seed=seed, batch_size=BATCH, depthwise=True)
    model = build(num_classes, scale="as trained" not in label)
    stages = backbones.stage_layers(model, BACKBONE)
    phases = strategies.build_phases([stage for stage in stages if stage != backbones.HEAD], config.train)
    trained = [layer for stage in phases[0].trainable if stage != backbones.HEAD for layer in stages[stage]]
    probe = Probe([v for layer in trained for v in layer.trainable_weights if has_weight_decay(v)], validation)

    def training(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng((seed, epoch)).permutation(len(train[1]))
        return tf.data.Dataset.from_tensor_slices((train[0][order], np.eye(num_classes, dtype="float32")[train[1][order]])).batch(BATCH)

    watched = tf.data.Dataset.from_tensor_slices((*validation, np.ones(len(validation[1]), "float32"))).batch(64)
    with tempfile.TemporaryDirectory() as directory:
        loss = losses.build_loss(config.train, {}, num_classes)
        trainer = Trainer(model, stages, phases, config.train, runtime, loss=loss)
        progress = trainer.fit(Batches(training, len(train[1]), watched), Path(directory), [probe])
    values, accuracies = probe.values, [row["val_accuracy"] for row in progress.history]
    fractions = [values["moved"], probe.updates[0], probe.updates[9]]
    cells = [f"{100 * fraction:.2f} %" for fraction in fractions] + [f"{values['cosine']:.2f}"]
    cells += [f"{100 * accuracies[0]:.1f}", f"{100 * values['batch']:.1f}", f"{max(row['val_loss'] for row in progress.history):.2f}"]
    cells += [f"{100 * min(accuracies):.1f}", f"{100 * accuracies[-1]:.1f}"]
    return f"| {label} | {seed} | {' | '.join(cells)} |", progress.phases[0]["collapse"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    arguments = parser.parse_args()
    config = RunConfig().replace(dataset="oxford_iiit_pet", data_dir=arguments.data_dir, validation_fraction=0.2)
    source = data.load_source(config.data)
    splits = data.make_splits(source, config.data, config.seed)
    train, validation = read(splits.train), read(splits.validation)
    print(HEADER, flush=True)
    notes = []
    for label, seed in itertools.product(arguments.rows, arguments.seeds):
        line, note = measure(label, ROWS[label], train, validation, len(source.class_names), seed)
        print(line, flush=True)
        notes += [f"{label}, seed {seed}: {note}"] if note else []
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()
