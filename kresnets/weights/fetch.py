"""Fetching published files: whole and checked, or one sentence with what to do."""

import functools
import hashlib
import importlib.metadata
import importlib.resources
import os
import pathlib
import shutil
import tempfile
import time

import keras

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
HUB_URL = "https://huggingface.co"

_PRIVATE = ".kresnets-"  # a folder of one download, in the cache that the file is for
_DAY = 24 * 3600.0


def fetch(published, trunk_only):
    """Return the path of a published file, fetched unless a cache has it, its hash checked.

    Files of keras.applications are kept where Keras keeps them, those of timm in the cache of `huggingface_hub`
    (`HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are its own), those that ship with kresnets beside its code, and
    those of another Python package where pip put it. However a download ends, a file that is half there never stands in
    a cache under its name.

    Args:
        published: a row of `kresnets.weights.list()`.
        trunk_only: whether the file without the head will do, where there is one.

    Raises:
        RuntimeError: where it can't be had; says which file, from where, and what to do with a copy had by hand.
    """
    ways = {"keras": _from_keras, "hub": _from_hub, "package": _from_package, "pypi": _from_pypi}
    return ways[published.host](published, trunk_only)


# --- kresnets itself ------------------------------------------------------------------------------------------------


def _from_package(published, trunk_only):
    return _shipped(f"{published.repository}/{published.file}", published.md5)


def variances(published):
    """Return the path of the file beside the table with the variances of a row's norms."""
    return _shipped(f"weights/shipped/{published.variances}", published.variances_md5)


def _shipped(file, md5):
    path = pathlib.Path(str(importlib.resources.files("kresnets"))) / file
    if not _is_whole(path, md5):
        raise RuntimeError(
            f"{path} ships with kresnets, and {'is damaged' if path.exists() else 'is not there'}: install kresnets "
            "anew (`pip install --force-reinstall --no-deps kresnets`), or pass weights=None."
        )
    return path


# --- another Python package ------------------------------------------------------------------------------------------


def _from_pypi(published, trunk_only):
    package, file = published.repository, published.file
    extra = published.tag.partition("/")[0].replace("_", "-")
    try:
        import onnx  # noqa: F401 - which reads it

        files = importlib.metadata.files(package) or ()
    except (ModuleNotFoundError, importlib.metadata.PackageNotFoundError) as error:
        raise RuntimeError(
            f"{published.tag!r} are weights in the package {package} ({published.licence}), read by the package onnx, "
            f"and {getattr(error, 'name', package) or package} is not installed: `pip install 'kresnets[{extra}]'`, or "
            "pass weights=None or the path of a file."
        ) from None
    path = next((pathlib.Path(one.locate()) for one in files if one.name == file), pathlib.Path(file))
    if not _is_whole(path, published.sha256, "sha256"):
        raise RuntimeError(
            f"{file} of the package {package} {'is not the one that is known' if path.exists() else 'is not there'} "
            f"(its sha256 must be {published.sha256}): `pip install --force-reinstall --no-deps {package}==1.0.0`, or "
            "pass weights=None."
        )
    return path


# --- keras.applications ---------------------------------------------------------------------------------------------


def _from_keras(published, trunk_only):
    file, md5 = (published.trunk_file, published.trunk_md5) if trunk_only else (published.file, published.md5)
    folders = _keras_folders()
    for folder in folders:
        if _is_whole(folder / file, md5):
            return folder / file
    url = f"{KERAS_URL}/{published.repository}/{file}"
    try:
        return _download(file, md5, url, folders)
    except Exception as error:  # get_file raises bare Exceptions when the network or the server fails
        place = os.path.join(_keras_home(), "models", file)
        raise RuntimeError(
            f"{file} could not be fetched from {url}; put a copy into {place} by hand (its md5 is {md5}), or pass "
            f"weights=None or the path of a file. The reason was: {_reason(error)}"
        ) from error


def _download(file, md5, url, folders):
    """Put a file into the first of the folders that can be written to.

    `get_file` writes under the final name: what a killed process got so far would stand there, and two processes would
    write into one another. So it writes into a folder that no one else knows, on the same file system, and the whole
    file is renamed.
    """
    folder = _writable(folders)
    _sweep(folder)
    with tempfile.TemporaryDirectory(prefix=_PRIVATE, dir=folder) as private:
        part = keras.utils.get_file(file, url, cache_dir=private, cache_subdir="", file_hash=md5)
        os.replace(part, folder / file)
    return folder / file


def _keras_home():
    return os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")


def _keras_folders():
    """Where Keras looks, and where it puts files if the first is not to be written to."""
    spare = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
    return pathlib.Path(_keras_home(), "models").expanduser(), pathlib.Path(spare, ".keras", "models")


def _writable(folders):
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise PermissionError(f"none of {', '.join(map(str, folders))} can be written to; set KERAS_HOME to one that can")


def _sweep(folder):
    """Remove what killed processes left. A download that still runs has touched its folder or file within a day."""
    for private in folder.glob(f"{_PRIVATE}*"):
        try:
            touched = max(path.stat().st_mtime for path in (private, *private.iterdir()))
        except OSError:  # another process sweeps, or has just finished
            continue
        if time.time() - touched > _DAY:
            shutil.rmtree(private, ignore_errors=True)


# --- the Hugging Face Hub -------------------------------------------------------------------------------------------


def _from_hub(published, trunk_only):
    """Fetch with `huggingface_hub`; a file of timm's has the head with it, which is left out when a model is filled."""
    endpoint = os.environ.get("HF_ENDPOINT", HUB_URL).rstrip("/")
    url = f"{endpoint}/{published.repository}/resolve/{published.revision or 'main'}/{published.file}"
    what = f"{published.file} of {published.repository}"
    by_hand = (
        f"fetch {url} by hand and pass the path of your copy as `weights` (a path does not say that its images want "
        f"{published.preprocessing}: pass that as `preprocess` to fine_tune and export), or pass weights=None"
    )
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise RuntimeError(
            f"{what} needs the package huggingface_hub: `pip install kresnets[hub]`, or {by_hand}."
        ) from None
    try:
        for _ in range(2):  # what lies in the cache may have been damaged there
            path = huggingface_hub.hf_hub_download(published.repository, published.file, revision=published.revision)
            if _is_as_stated(path):
                return pathlib.Path(path)
            for damaged in (os.path.realpath(path), path):
                os.remove(damaged)
        raise ValueError("its sha256 is not the one that the host states")
    except Exception as error:  # each version of huggingface_hub lets those of another HTTP library through
        raise RuntimeError(f"{what} could not be fetched: {by_hand}. The reason was: {_reason(error)}") from error


def _is_as_stated(path):
    """Whether a file has the sha256 that the hub states; its own check is of the length alone.

    Its cache is a link to a file that is named by that hash. Where there are no links, as on Windows, nothing can be
    compared.
    """
    stated = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
    return len(stated) != 64 or _is_whole(path, stated, "sha256")


# --- both -----------------------------------------------------------------------------------------------------------


def _is_whole(path, expected, algorithm="md5"):
    try:
        stat = os.stat(path)
        return _digest(os.fspath(path), algorithm, stat.st_size, stat.st_mtime_ns, stat.st_ino) == expected
    except OSError:
        return False


@functools.lru_cache(maxsize=128)
def _digest(path, algorithm, size, mtime_ns, inode):
    """Hash a file, once a process for as long as it stays the same file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _reason(error):
    """What was at the bottom of an error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
