"""Stages of each backbone: (stage, name of its last layer), in order.

The graph is a single tensor after each of these layers, so that a model can be split there. If Keras Applications gives the last layer
of a stage no name, the stage ends one layer earlier, or at the name from `applications.py`.
"""

import math
from collections.abc import Sequence

Stages = tuple[tuple[str, str], ...]

HEAD = "head"  # the stage after the last one of the backbone: all that leads to the logits
LOGITS = "logits"  # the Dense layer of every classifier, its last layer with weights


def _numbered_stages(ends: Sequence[str], *, stem: str, prefix: str = "block") -> Stages:
    return (("stem", stem), *((f"{prefix}{number}", end) for number, end in enumerate(ends, start=1)))


def torch_resnet(num_blocks: Sequence[int]) -> Stages:
    """Return the stages of torchvision's ResNets."""
    return _numbered_stages(
        [f"layer{layer}_{count - 1}_out" for layer, count in enumerate(num_blocks, start=1)], stem="stem_out", prefix="layer"
    )


def resnet(num_blocks: Sequence[int], *, last: str = "") -> Stages:
    """Return the stages of Keras's ResNets. `last` is the layer after the last block in version 2."""
    ends = [f"conv{number}_block{count}_out" for number, count in enumerate(num_blocks, start=2)]
    return _numbered_stages([*ends[:-1], last or ends[-1]], stem="pool1_pool", prefix="layer")


def convnext(name: str) -> Stages:
    """Return the stages of ConvNeXt. They end at the downsampling after them, the only layers with a name."""
    ends = [*(f"{name}_downsampling_block_{number}" for number in range(3)), "global_average_pooling2d_1"]
    return (*_numbered_stages(ends, stem=f"{name}_stem"), ("norm", "layer_normalization_1"))


def efficientnet(repeats: Sequence[int], depth: float, *, single: str) -> Stages:
    """Return the stages of EfficientNet. A repeated block ends in the addition of its last repetition, others end in `single`."""
    counts = [math.ceil(depth * count) for count in repeats]
    letters = "abcdefghijklmnopqrstuvwxyz"
    ends = [f"block{n}{letters[count - 1]}_add" if count > 1 else f"block{n}a_{single}" for n, count in enumerate(counts, start=1)]
    return (*_numbered_stages(ends, stem="stem_activation"), ("top", "top_activation"))


def efficientnet_lite(num_blocks: Sequence[int]) -> Stages:
    """Return the stages of EfficientNet-Lite. The last one includes pooling and dropout, so dropout is off while that stage is frozen."""
    return (*efficientnet(num_blocks, 1.0, single="project_bn")[:-1], ("top", "top_dropout"))


def nasnet(num_cells: int) -> Stages:
    """Return the stages of NASNet. Each cell takes the two before it, so the graph is a single tensor only before and after all cells."""
    return (("stem", "stem_bn1"), ("cells", f"normal_concat_{num_cells}"))


ALEXNET: Stages = (
    ("conv1", "pool1"),
    ("conv2", "pool2"),
    ("conv3", "conv3_out"),
    ("conv4", "conv4_out"),
    ("conv5", "pool5"),
    ("fc6", "fc6_out"),
    ("fc7", "fc7_out"),
)
VGG19: Stages = tuple((f"block{number}", f"block{number}_pool") for number in range(1, 6))
VGG16: Stages = (*VGG19, ("fc1", "fc1"), ("fc2", "fc2"))
VIT: Stages = (("embed", "embed_out"), *((f"block{number}", f"block{number}_out") for number in range(1, 13)), ("norm", "norm"))
DENSENET = _numbered_stages(["pool2_pool", "pool3_pool", "pool4_pool", "relu"], stem="pool1")
INCEPTION_V3 = _numbered_stages(["mixed2", "mixed7", "mixed10"], stem="max_pooling2d_2")
INCEPTION_RESNET_V2 = _numbered_stages(["block35_10_ac", "block17_20_ac", "conv_7b_ac"], stem="max_pooling2d_2")
XCEPTION = _numbered_stages(["add_3", "add_11", "block14_sepconv2_act"], stem="block1_conv2_act")
MOBILENET = _numbered_stages([f"conv_pw_{number}_relu" for number in (1, 3, 5, 11, 13)], stem="conv1_relu")
MOBILENET_V2 = (
    *_numbered_stages(
        ["expanded_conv_project_BN", *(f"block_{number}_add" for number in (2, 5, 9, 12, 15)), "block_16_project_BN"], stem="Conv1_relu"
    ),
    ("top", "out_relu"),
)
MOBILENET_V3_LARGE = (
    *_numbered_stages(["expanded_conv_add", *(f"expanded_conv_{number}_add" for number in (2, 5, 9, 11, 14))], stem="conv_bn"),
    ("top", "conv_1_bn"),
)
MOBILENET_V3_SMALL = (
    *_numbered_stages(["expanded_conv_project_bn", *(f"expanded_conv_{number}_add" for number in (2, 5, 7, 10))], stem="conv_bn"),
    ("top", "conv_1_bn"),
)
TINY: Stages = (("stem", "stem_out"), ("body", "body_out"))
