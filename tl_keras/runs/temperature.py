"""Folds the temperature of a calibrated run into the head of its model."""

import keras

from tl_keras.backbones import LOGITS


def fold_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return a copy of a classifier whose logits are those of `model` divided by `temperature`, see `results.calibration`.

    Kernel and bias of the head are divided, so the copy has the layers of `model` and costs the same in every format. No label
    changes. The head `one_logit` returns (0, z), of which z is divided.

    Args:
        model: the classifier of a run: a functional model with the Dense layer `logits`.
        temperature: positive; 1 changes nothing.
    """
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    head = copy.get_layer(LOGITS)
    head.set_weights([weight / temperature for weight in head.get_weights()])
    return copy
