"""Export a finished run as a SavedModel for TF Serving.

    python apps/export.py runs/cells saved_models/cells

writes saved_models/cells/1 (then 2, 3, ...), in one step that a polling server can meet at any moment.
"""

import argparse
import shlex

from _common import load_run, positive_int, run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder that apps/finetune.py wrote")
    parser.add_argument("path", metavar="saved_models/NAME", help="folder of the model, parent of its versions")
    parser.add_argument("--top", type=positive_int, default=5, help="labels per image, at most (default: 5)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what the server computes in; bfloat16 is faster on processors that have it (default: float32)",
    )
    arguments = parser.parse_args()

    model, labels, preprocessing = load_run(arguments.run)
    from kresnets.export import export_saved_model

    folder = export_saved_model(model, arguments.path, labels, preprocessing, arguments.top, arguments.dtype)
    served = folder.parent.resolve()
    mount = shlex.quote(f"type=bind,source={served},target=/models/{served.name}")
    name = shlex.quote(f"MODEL_NAME={served.name}")
    print(folder)
    print(f"ask it:   python apps/predict.py {shlex.quote(str(folder))} IMAGE...")
    print(f"serve it: docker run -p 8500:8500 -p 8501:8501 --mount {mount} -e {name} -t tensorflow/serving")


if __name__ == "__main__":
    run(main)
