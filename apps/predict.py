"""Name what is on photographs, with a run or with an exported model.

    python apps/predict.py saved_models/cells photo1.jpg photo2.png

An exported model is asked as a server would ask it, by TensorFlow alone: neither Keras nor kresnets is imported. Files
that are no image get a line that says so, and the exit code is 1.
"""

import argparse
import pathlib
import re

from _common import import_tensorflow, load_run, positive_int, run

_BATCH = 16  # files held in memory at a time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", metavar="MODEL", type=pathlib.Path, help="a run, a version folder, or the folder of versions (highest)"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="JPEG, PNG, GIF or BMP file")
    parser.add_argument("--top", type=positive_int, default=3, help="labels per image, at most (default: 3)")
    arguments = parser.parse_args()

    answer = open_model(arguments.model, arguments.top)
    answers = []
    for start in range(0, len(arguments.images), _BATCH):
        answers += ask(answer, arguments.images[start : start + _BATCH], arguments.top)
    print_table(zip(arguments.images, answers, strict=True))
    return 1 if any(isinstance(each, str) for each in answers) else 0


def open_model(folder, top):
    """Return a function from a string tensor of image bytes to a dict of labels, scores and valid."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give a run, or an exported model such as saved_models/NAME.")
    version = newest_version(folder)
    if version:
        return open_saved_model(version)
    model, labels, preprocessing = load_run(folder)
    from kresnets.export import Classifier

    return Classifier.of(model, labels, preprocessing, top).serving_default


def newest_version(folder):
    """Return the folder that holds a SavedModel: `folder` itself, or its child with the highest number, or None."""
    if (folder / "saved_model.pb").is_file():
        return folder
    children = [child for child in folder.iterdir() if re.fullmatch("[0-9]+", child.name)]
    versions = [child for child in children if (child / "saved_model.pb").is_file()]
    return max(versions, key=lambda child: int(child.name), default=None)


def open_saved_model(folder):
    tf = import_tensorflow()
    try:
        model = tf.saved_model.load(str(folder))
    except tf.errors.OpError as error:
        raise ValueError(f"The SavedModel in {folder} cannot be read: {error.message}") from error
    signature = model.signatures.get("serving_default")
    outputs = set(signature.structured_outputs) if signature else set()
    if not outputs >= {"labels", "scores", "valid"} or "image_bytes" not in signature.structured_input_signature[1]:
        raise ValueError(f"{folder} has no signature from `image_bytes` to labels: export the model by apps/export.py.")
    # By way of the model, which must stay alive: a signature alone does not hold the variables it uses.
    return lambda image_bytes: model.signatures["serving_default"](image_bytes=image_bytes)


def ask(answer, files, top):
    """Return for each file its (label, score) pairs, best first, or a str that says why there are none."""
    import tensorflow as tf

    contents = [read(file) for file in files]
    # A file that cannot be read still takes its row, so that rows and files stay together.
    answered = answer(tf.constant([b"" if isinstance(each, str) else each for each in contents], tf.string))
    labels, scores, valid = (answered[name].numpy() for name in ("labels", "scores", "valid"))
    answers = []
    for row, content in enumerate(contents):
        if isinstance(content, str):
            answers.append(content)
        elif not valid[row]:
            answers.append("no image that can be decoded (JPEG, PNG, GIF or BMP)")
        else:
            answers.append([(label.decode(), score) for label, score in zip(labels[row, :top], scores[row, :top])])
    return answers


def read(file):
    try:
        return pathlib.Path(file).read_bytes()
    except OSError as error:
        return error.strerror


def print_table(answers):
    """Print a line per label with the file's name on the first, or the reason why a file has none."""
    lines = [("file", "label", "score")]
    for file, answer in answers:
        if isinstance(answer, str):
            lines.append((file, answer, ""))
        else:
            lines += [(file if not rank else "", label, f"{score:.4f}") for rank, (label, score) in enumerate(answer)]
    file_width = max(len(line[0]) for line in lines)
    label_width = max(len(line[1]) for line in lines if line[2])  # a reason may run on
    for file, label, score in lines:
        print(f"{file:{file_width}}  {label:{label_width}}  {score}".rstrip())


if __name__ == "__main__":
    run(main)
