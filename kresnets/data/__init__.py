"""Data: images with labels from a folder, a CSV file or TFDS, checked, split, decoded, batched and augmented.

The only part of the package, with `kresnets.export`, that needs TensorFlow; its pipelines feed any Keras backend.
"""

from kresnets.data.augment import Augmentation, Mixup, augment_batches, augmentation
from kresnets.data.check import MAX_PIXELS, check_image, check_images
from kresnets.data.images import decode_image, load_image, resize_and_crop
from kresnets.data.loaded import Data
from kresnets.data.part import Part, class_weight, epoch_variable
from kresnets.data.sources import load_data

__all__ = [
    "MAX_PIXELS",
    "Augmentation",
    "Data",
    "Mixup",
    "Part",
    "augment_batches",
    "augmentation",
    "check_image",
    "check_images",
    "class_weight",
    "decode_image",
    "epoch_variable",
    "load_data",
    "load_image",
    "resize_and_crop",
]
