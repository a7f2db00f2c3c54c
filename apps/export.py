"""Export a finished run as a SavedModel for TF Serving, or for another runtime.

    python apps/export.py runs/cells saved_models/cells --verify 100

writes saved_models/cells/1 (then 2, 3, ...), in one step that a polling server can meet at any moment. With --verify
the written model and the Keras model are first asked about photographs that the run did not learn from.

    python apps/export.py runs/cells cells.onnx --format onnx

writes a file for another runtime, and cells.labels.txt (docs/formats.md).
"""

import argparse
import csv
import io
import json
import pathlib
import shlex

import _formats
from _common import load_photographs, load_run, positive_int, read_config, run


def main():
    arguments = _parser().parse_args()
    if arguments.format != "saved-model":
        return _formats.export(arguments)
    model, labels, preprocessing = load_run(arguments.run)
    from kresnets.export import export_saved_model, read_card

    folder = export_saved_model(
        model,
        arguments.path,
        labels,
        preprocessing,
        arguments.top,
        arguments.dtype,
        card=_card(arguments.run),
        verify_on=_photographs(arguments.run, arguments.verify) if arguments.verify else (),
    )
    served = folder.parent.resolve()
    mount = shlex.quote(_mount(served))
    name = shlex.quote(f"MODEL_NAME={served.name}")
    print(folder)
    if verified := read_card(folder)["verified"]:
        print(
            f"verified: {verified['photographs']} photographs, scores within {verified['largest_difference']:.2g} of "
            f"the Keras model's, the same first label for {verified['same_first_label']:.2%}"
        )
    print(f"ask it:   python apps/predict.py {shlex.quote(str(folder))} IMAGE...")
    print(f"serve it: docker run -p 8500:8500 -p 8501:8501 --mount {mount} -e {name} -t tensorflow/serving")


def _mount(served):
    """Write Docker's line of comma-separated values for a folder, whose name may hold a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={served}", f"target=/models/{served.name}"])
    return line.getvalue()


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder that apps/finetune.py wrote")
    parser.add_argument(
        "path",
        metavar="saved_models/NAME",
        help="folder of the model, parent of its versions; with another --format a file",
    )
    parser.add_argument(
        "--format",
        choices=("saved-model", "onnx", "litert", "litert-int8", "openvino"),
        default="saved-model",
        help="what to write; litert-int8 is calibrated by the run's training images (default: saved-model)",
    )
    parser.add_argument("--top", type=positive_int, default=5, help="labels per image, at most (default: 5)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what the server computes in; bfloat16 is faster on processors that have it (default: float32)",
    )
    parser.add_argument(
        "--verify",
        metavar="N",
        type=positive_int,
        help="ask both models about N photographs of the run's test part, or all; the card keeps what differs",
    )
    return parser


def _card(folder):
    """Say on the model card where a run's model comes from and what it was found to do."""
    config = read_config(folder)
    arguments = config.get("arguments") or {}
    return {
        "network": config.get("model"),
        "weights": arguments.get("weights"),
        "data": {"source": arguments.get("data"), "sha256": config.get("data")},
        "metrics": _metrics(pathlib.Path(folder) / "metrics.json"),
        "command": config["command"],
    }


def _metrics(file):
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): remove it, and the model card says nothing of metrics."
        ) from error


def _photographs(folder, count):
    """Return photographs of a run's test part, as they were given."""
    data = load_photographs(folder)
    images = (data.test.encoded(index) for index in range(min(count, len(data.test))))
    return [image.decode(errors="surrogateescape") if isinstance(image, bytes) else image.read() for image in images]


if __name__ == "__main__":
    run(main)
