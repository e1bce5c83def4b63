"""The configuration that tests of runs start from. It names what the defaults choose for users, so that tests do not change with them."""

from tl_keras.config import RunConfig

PLAIN = RunConfig().replace(
    backbone="resnet50", strategy="full", optimizer="sgd", learning_rate=1e-3, momentum=0.9, weight_decay=0.0, schedule="constant",
    warmup_epochs=0.0, augmentation="none", batch_size=64, epochs=10,
)  # fmt: skip
