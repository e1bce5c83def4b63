"""Images to train and test on: sources, splits, sampling, augmentation and the input pipeline.

    registry              table of data sets; `load_source` opens one
    tfds, folder, table, digits, glyphs      loaders of data sets
    folder_layout, table_file, image_files      files of folders and tables, and the data sets made of them
    examples, decode      labelled images and their decoder
    splits                training, validation and test examples of a run; subsampling of classes
    near_copies           copies in another size or compression, in other splits
    sampling              order of the examples in an epoch
    augmentation, augmentation_arguments      table of augmentations, and the grammar of the setting
    image_ops, augment_policies, mixup, random_crop, stateless_random      parts of augmentations
    geometry, pipeline    crop and resize; tf.data batches of all of the above
    augmentation_sheet    picture of augmented images
    augmentation_strip    small picture of augmented images for the report of a run

Importing this package loads no TensorFlow. The pipeline, the functions of augmentations and the TFDS loader load it when used.
"""

from tl_keras.data.augmentation import AUGMENTATIONS, Augmentation, AugmentationSpec, get_augmentation
from tl_keras.data.decode import decode_image
from tl_keras.data.examples import DatasetSource, Examples, ImageStore, make_examples
from tl_keras.data.near_copies import describe_near_copies
from tl_keras.data.registry import DATASETS, DatasetInfo, find_dataset, load_source, state_of
from tl_keras.data.sampling import batch_sizes, epoch_size
from tl_keras.data.splits import TEST_SEED, Splits, limit, make_splits, parse_keep, untested_classes

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Augmentation",
    "AugmentationSpec",
    "DatasetInfo",
    "Examples",
    "ImageStore",
    "DatasetSource",
    "Splits",
    "TEST_SEED",
    "batch_sizes",
    "decode_image",
    "describe_near_copies",
    "epoch_size",
    "find_dataset",
    "get_augmentation",
    "limit",
    "load_source",
    "make_examples",
    "make_splits",
    "parse_keep",
    "state_of",
    "untested_classes",
]
