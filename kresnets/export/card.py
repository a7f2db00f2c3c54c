"""The model card of an exported version: what it is, where it comes from, what it was found to do."""

import dataclasses
import datetime
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from kresnets._util.types import PathLike
from kresnets.decoding import LATER, Decoding
from kresnets.keras_hooks.graph import layers_in_order
from kresnets.version import __version__
from kresnets.weights import sources
from kresnets.weights.origin import origin_of

PLACE = ("assets", "model_card.json")
VERSION = 3  # of the card: 1 knew no `decoding`, 2 no EXIF orientation, which was ignored
# What the graph decodes; where the server's TensorFlow does, WebP too. Other files' pixels go to `predict_tensor`.
READS = ["JPEG", "PNG", "GIF", "BMP"]
_DEEPEST = 100  # levels of a card; each program that reads JSON has a limit of its own
# What only the exporter's user knows: null where they said nothing. `network` is the model's name then, and `weights`,
# `licence` and `notice` are those of the published weights that the model began with, if it carries them.
OF_THE_USER = ("network", "weights", "licence", "notice", "data", "metrics")
OF_THE_EXPORT = (
    *("kresnets", "created", "parameters", "classes", "top", "input_size", "max_pixels", "preprocessing"),
    *("task", "tta", "dtype", "batch_norms_folded", "sha256", "verified", "version", "decoding", "reads"),
)


def checked(card: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a user says of a model as JSON will hold it.

    Args:
        card: dict of str to what JSON can hold, or None. Any name but those that export finds out itself.

    Raises:
        ValueError: for another type, a name that export fills in, or a value that JSON cannot hold (NaN included).
    """
    given: Any = {} if card is None else card
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"`card` must be a dict with str keys, such as {{'metrics': ...}}. Received: card={given!r}")
    if taken := sorted(set(given) & set(OF_THE_EXPORT)):
        raise ValueError(
            f"`card` says {', '.join(map(repr, taken))}, which the export finds out by itself: leave it out, or give "
            "it another name."
        )
    try:
        text = json.dumps(given, allow_nan=False, ensure_ascii=False)
        given = json.loads(text)
        shallow = _levels(given) <= _DEEPEST
    except RecursionError:
        shallow = False
    except (TypeError, ValueError) as error:
        raise ValueError(f"`card` must hold what JSON can hold, without NaN: {error}.") from None
    if not shallow:
        raise ValueError(f"`card` must not be nested more than {_DEEPEST} levels deep.")
    if not is_unicode(text):
        raise ValueError("`card` must hold text that UTF-8 can hold: it has half of a surrogate pair (as '\\udcff').")
    return given


def is_unicode(text: str) -> bool:
    """Whether a str can be written in UTF-8: one made of the bytes of a file's name may hold halves of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _levels(value):
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_levels, within), default=0)


def write_card(
    folder: pathlib.Path, classifier: Any, served: Any, dtype: str, card: Mapping[str, Any], verified: Any
) -> pathlib.Path:
    """Write `assets/model_card.json` into a SavedModel.

    Args:
        folder: pathlib.Path of the SavedModel, complete but for this file.
        classifier: `Classifier` of the Keras model.
        served: the `Classifier` that was written.
        dtype: what that computes in.
        card: what `checked` returned.
        verified: what `proof.verify` returned.

    Returns:
        pathlib.Path of the file.
    """
    how = classifier.preprocessing
    found = {
        "version": VERSION,
        "kresnets": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "parameters": classifier.model.count_params(),
        "classes": list(classifier.labels),
        "top": classifier.top,
        "input_size": classifier.size,
        "max_pixels": classifier.max_pixels,
        "preprocessing": {"mode": how.mode, "crop": how.crop, "mean": how.mean, "std": how.std},
        "decoding": dataclasses.asdict(how.decoding or Decoding()),
        "reads": READS if classifier.decoding.from_bytes else [],
        "task": classifier.scores.task,
        "tta": classifier.tta,
        "dtype": dtype,
        "batch_norms_folded": _norms(classifier.model) - _norms(served.model),
        "sha256": _hashes(folder),
        "verified": verified,
    }
    said = dict.fromkeys(OF_THE_USER) | {"network": classifier.model.name} | _origin(classifier.model) | card
    file = folder.joinpath(*PLACE)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(said | found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def _origin(model):
    origin = origin_of(model)
    published = sources.tagged(origin)
    rights = {"licence": published.licence, "notice": published.notice} if published else {}
    return {"weights": origin} | rights


def read_card(folder: PathLike) -> dict[str, Any]:
    """Return the model card of a version that `export_saved_model` wrote.

    Args:
        folder: path of the version, such as `saved_models/pets/3`.

    Returns:
        dict: `network`, `weights`, `licence`, `notice`, `data` and `metrics` (None where nobody said), whatever else
            the exporter's user gave, and what the export found: `version` (of the card: 1 where alpha was dropped and
            16-bit PNG gave their high byte), `decoding` (of `kresnets.Decoding`), `reads` (formats of files),
            `kresnets` (version), `created` (UTC), `parameters`, `classes`, `top`, `input_size` (pixels a side),
            `max_pixels`, `preprocessing`, `task`, `dtype`, `batch_norms_folded`, `sha256` of each file (that of
            `saved_model.pb` is the graph's), and `verified`: None, or `photographs`, how many were asked of both,
            `largest_difference` of a score from the Keras model's probability, and `same_first_label`, the share of
            images.

    Raises:
        ValueError: where there is no card, or a damaged one.

    Example:
        >>> from kresnets.export import read_card
        >>> read_card("saved_models/pets/1")["classes"]  # doctest: +SKIP
        ['cat', 'dog']
    """
    file = pathlib.Path(folder).joinpath(*PLACE)
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
        decoding = LATER | dict(found.get("decoding") or dataclasses.asdict(Decoding.before()))
        return {"version": 1} | found | {"decoding": decoding}
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no model card: give a version folder that kresnets exported.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: export the model again. ({error})") from None


def _hashes(folder):
    """SHA-256 of each file by its name, the graph first: it holds the weights too where they are constants."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: _digest(folder / name) for name in sorted(names, key="saved_model.pb".__ne__)}


def _digest(file):
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _norms(model):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_in_order(model))
