"""Where published weights come from: a row a network."""

import dataclasses
import os
import pathlib

import keras

KERAS_APPLICATIONS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that someone published for a network.

    Args:
        file: name of the file with the head.
        md5: its hash.
        trunk_file: name of the file without the head.
        trunk_md5: its hash.
    """

    file: str
    md5: str
    trunk_file: str
    trunk_md5: str


def _keras_row(name, md5, trunk_md5):
    stem = f"{name}_weights_tf_dim_ordering_tf_kernels"
    return Published(file=f"{stem}.h5", md5=md5, trunk_file=f"{stem}_notop.h5", trunk_md5=trunk_md5)


# Network -> its ImageNet weights. Names and hashes are keras.applications' own (a test compares them), and so is the
# cache: a file that it fetched is not fetched again.
IMAGENET = {
    "ResNet50": _keras_row("resnet50", "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626"),
    "ResNet101": _keras_row("resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
    "ResNet152": _keras_row("resnet152", "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
}


def fetch(published, trunk_only):
    """Fetch a published file, unless the cache has it, and check its hash.

    Args:
        published: a `Published`.
        trunk_only: whether the file without the head will do.

    Returns:
        pathlib.Path of the file.

    Raises:
        RuntimeError: where it can't be had; says which file, from where, and where to put a copy by hand.
    """
    file, md5 = (published.trunk_file, published.trunk_md5) if trunk_only else (published.file, published.md5)
    url = KERAS_APPLICATIONS_URL + file
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    try:
        return pathlib.Path(keras.utils.get_file(file, url, cache_dir=home, cache_subdir="models", file_hash=md5))
    except Exception as error:  # get_file raises bare Exceptions when the network or the server fails
        place = os.path.join(home, "models", file)
        raise RuntimeError(
            f"{file} could not be fetched from {url}; put a copy into {place} by hand (its md5 is {md5}), or pass "
            f"weights=None or the path of a file. The reason was: {' '.join(str(error).split())}"
        ) from error
