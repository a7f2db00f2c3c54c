"""Name what is on images, with a run or with an exported model."""

import csv as csv_module
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import tensorflow as tf
from cyclopts import Parameter

from kresnets._util import files
from kresnets.cli.options import Count
from kresnets.data.check import check_image
from kresnets.data.listing import files_in
from kresnets.data.transcode import as_png
from kresnets.decoding import Decoding
from kresnets.export import read_card
from kresnets.export.signatures import Signatures
from kresnets.preprocess import Preprocessing
from kresnets.runs.folder import RunFolder

_BATCH = 16  # files held in memory at a time
_HEADER = b"file,rank,label,score,reason"
Answer = list[tuple[str, float]] | str  # labels with scores, best first, or why there are none


def predict(
    model: pathlib.Path,
    images: Annotated[list[str], Parameter(negative="", consume_multiple=True)],
    /,
    *,
    top: Count = 3,
    csv: pathlib.Path | None = None,
    tta: Literal["none", "flip", "crops"] = "none",
) -> int:
    """Name what is on images, with a run or with an exported model.

    kresnets predict saved_models/pets image1.jpg image2.png

    An exported model is asked as a server would ask it, through its SavedModel. Files that are no image get a line that
    says so, and the exit code is 1.

    Args:
        model: A run, a version's folder, the folder of versions (the highest is taken), or an exported .onnx, .tflite
            or .xml with what was written beside it.
        images: JPEG, PNG, GIF, BMP, TIFF, AVIF, .npy or (by the extra images) HEIC files, or folders of such.
        top: Labels an image, at most.
        tta: Test-time augmentation, of a run: the answer is the mean over the image and its mirror image (flip), or 12
            views (crops). What is exported has its own.
        csv: Write the answers into this file too, a line a label: file, rank, label, score, or why there is none.
    """
    if csv is not None:
        _check_csv(csv)
    images = listed(images)
    answer, decoding = open_model(model, top, tta)
    answers: list[Answer] = []
    for start in range(0, len(images), _BATCH):
        answers += ask(answer, images[start : start + _BATCH], top, decoding)
    print_table(zip(images, answers, strict=True), numbers=getattr(answer, "numbers", False))
    if csv is not None:
        with files.replacing(csv) as beside:
            write_csv(beside, zip(images, answers, strict=True))
    return 1 if any(isinstance(each, str) for each in answers) else 0


def listed(paths: Iterable[str]) -> list[str]:
    """Return files, and of each folder those in it, at any depth, as they are in a class folder."""
    found: list[str] = []
    for path in paths:
        inside = sorted(files_in(pathlib.Path(path))) if os.path.isdir(path) else [path]
        if not inside:
            raise ValueError(f"There is no image in the folder {path}.")
        found += inside
    return found


def _check_csv(path):
    """Refuse what cannot be written, and what somebody else wrote, before anything is asked."""
    if not path.parent.is_dir():
        raise ValueError(f"--csv {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise ValueError(f"--csv {path} is a folder: give a file in it.")
    if path.exists() and path.read_bytes()[: len(_HEADER)] != _HEADER:
        raise ValueError(f"--csv {path} exists, and was not written by kresnets predict: give another name.")


def write_csv(path: pathlib.Path, answers: Iterable[tuple[str, Answer]]) -> None:
    """Write a line for each label of each file; one without an answer has its reason."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv_module.writer(stream)
        writer.writerow(_HEADER.decode().split(","))
        for file, answer in answers:
            if isinstance(answer, str):
                writer.writerow([file, "", "", "", answer])
            else:
                writer.writerows([file, rank, label, float(score), ""] for rank, (label, score) in enumerate(answer, 1))


def open_model(folder: pathlib.Path, top: int, tta: str = "none") -> tuple[Callable[..., dict[str, Any]], Decoding]:
    """Return a function from a string tensor of image bytes to a dict of labels, scores and valid, and how it decodes
    them."""
    exported = folder.is_file() or folder.is_dir() and newest_version(folder) is not None
    if not exported and folder.is_dir() and not (folder / "config.json").exists():
        inside = sorted(one.name for one in folder.iterdir() if one.is_dir() and newest_version(one) is not None)
        if inside:
            raise ValueError(f"{folder} holds {', '.join(inside)}: give one of them, such as {folder / inside[0]}.")
    if exported and tta != "none":
        raise ValueError(f"--tta {tta} is for a run, and {folder} was exported: kresnets export --tta builds it in.")
    if folder.is_file():
        from kresnets.export.formats import decoding_of, open_file

        return open_file(folder, top), decoding_of(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no {folder} here: give a run, or an exported model such as saved_models/NAME.")
    version = newest_version(folder)
    if version:
        return _open_saved_model(version, top)
    model, labels, preprocessing = RunFolder(folder).load()
    from kresnets.export import Classifier

    classifier = Classifier.of(model, labels, preprocessing, top, tta=tta)
    if classifier.scores.numbers:
        return _named(classifier.serving_default, classifier.labels), classifier.decoding
    return classifier.serving_default, classifier.decoding


def newest_version(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the folder that holds a SavedModel: `folder` itself, or its child with the highest number, or None."""
    if (folder / "saved_model.pb").is_file():
        return folder
    children = [child for child in folder.iterdir() if re.fullmatch("[0-9]+", child.name)]
    versions = [child for child in children if (child / "saved_model.pb").is_file()]
    return max(versions, key=lambda child: int(child.name), default=None)


def _open_saved_model(folder: pathlib.Path, top: int) -> tuple[Callable[..., dict[str, Any]], Decoding]:
    try:
        model = tf.saved_model.load(str(folder))
    except tf.errors.OpError as error:
        raise ValueError(f"The SavedModel in {folder} cannot be read: {error.message}") from error
    if (folder / "assets" / "model_card.json").is_file():
        card = read_card(folder)
        if card["decoding"]["channels"] != 3:
            return _by_pixels(model, card, top)
    signature = model.signatures.get("serving_default")
    outputs = set(signature.structured_outputs) if signature else set()
    known = outputs >= {"labels", "scores", "valid"} or outputs >= {"values", "valid"}
    if not known or "image_bytes" not in signature.structured_input_signature[1]:
        raise ValueError(
            f"{folder} has no signature from `image_bytes` to labels: export the model by kresnets export."
        )
    # By way of the model, which must stay alive: a signature alone does not hold the variables it uses.
    ask = lambda image_bytes: model.signatures["serving_default"](image_bytes=image_bytes)
    if "values" not in outputs:
        return ask, Decoding()
    return _named(ask, read_card(folder)["classes"]), Decoding()


def _by_pixels(model, card, top):
    """Ask an exported model about pixels that are decoded here, of TIFF and arrays too."""
    decoding, numbers = Decoding.of_data(card["decoding"]), card["task"] == "numbers"
    outputs = "values" if numbers else "probabilities"
    network = lambda images: {"probabilities": model.signatures["predict_tensor"](images=images)[outputs]}
    labels, how = tuple(card["classes"]), Preprocessing("none", crop=card["preprocessing"]["crop"], decoding=decoding)
    size, most = card["input_size"], card["max_pixels"]
    ask = Signatures(network, labels, min(top, len(labels)), size, how, most, numbers, arrays=True).serving_default
    return (_named(ask, labels) if numbers else ask), decoding


def _named(ask, names):
    """Return a function that gives numbers as labels and scores are given: all, under their names."""

    def answer(image_bytes):
        answered = ask(image_bytes)
        labels = tf.tile(tf.constant([list(names)]), [tf.shape(image_bytes)[0], 1])
        return answered | {"labels": labels, "scores": answered["values"]}

    answer.numbers = True  # type: ignore[attr-defined]  # which are of any size
    return answer


def ask(
    answer: Callable[..., dict[str, Any]], files: list[str], top: int, decoding: Decoding = Decoding()
) -> list[Answer]:
    """Return for each file its `Answer`."""
    contents = [read(file, decoding) for file in files]
    # A file that cannot be read still takes its row, so that rows and files stay together.
    answered = answer(tf.constant([b"" if isinstance(each, str) else each for each in contents], tf.string))
    labels, scores, valid = (answered[name].numpy() for name in ("labels", "scores", "valid"))
    answers: list[Answer] = []
    for row, content in enumerate(contents):
        if isinstance(content, str):
            answers.append(content)
        elif not valid[row]:
            known = check_image(content, decoding).reason  # a model may allow fewer pixels
            answers.append(f"no image that can be decoded (JPEG, PNG, GIF or BMP){': ' if known else ''}{known or ''}")
        else:
            shown = slice(None) if "values" in answered else slice(top)
            answers.append([(label.decode(), score) for label, score in zip(labels[row, shown], scores[row, shown])])
    return answers


def read(file: str, decoding: Decoding = Decoding()) -> bytes | str:
    """Return the bytes of a file, or why they cannot be read."""
    try:
        content = pathlib.Path(file).read_bytes()
        if decoding.channels == 3:
            return as_png(content)[0]
        # Of such files more is decoded than a server dares to: they are looked through first.
        if reason := check_image(content, decoding).reason:
            raise ValueError(reason)
        return content
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # TIFF, HEIC or AVIF that cannot be read
        return f"no image that can be decoded: {error}"


def _as_text(score, numbers):
    if numbers and abs(score) < 0.001 and score:  # what rounds to nothing would be told as nothing
        return f"{score:.2g}"
    return f"{score:.4f}" if abs(score) < 10 else f"{score:.2f}"


def print_table(answers: Iterable[tuple[str, Answer]], numbers: bool = False) -> None:
    """Print a line a label with the file's name on the first, or the reason why a file has none."""
    lines = [("file", "number", "value") if numbers else ("file", "label", "score")]
    for file, answer in answers:
        file = file if file.isprintable() else ascii(file)
        if isinstance(answer, str):
            lines.append((file, answer, ""))
        else:
            lines += [
                (file if not rank else "", label, _as_text(score, numbers))
                for rank, (label, score) in enumerate(answer)
            ]
    file_width = max(len(line[0]) for line in lines)
    label_width = max(len(line[1]) for line in lines if line[2])  # a reason may run on
    for file, label, score in lines:
        print(f"{file:{file_width}}  {label:{label_width}}  {score}".rstrip())
