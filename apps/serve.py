"""Serve an exported model, to try it and for small use: TF Serving's REST interface, and a page to drop photographs on.

    python apps/serve.py saved_models/cells

answers on http://127.0.0.1:8501 as `tensorflow_model_server --rest_api_port=8501` would, and changes over to a new
version as soon as it appears. For production take TF Serving itself (docs/serving.md).
"""

import argparse

import _common


def main(argv=None):
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add("path", metavar="saved_models/NAME", help="folder of the model, parent of its versions")
    add("--name", help="name in the paths (default: the folder's)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: 127.0.0.1, this machine)")
    add("--port", type=int, default=8501, help="0: any that is free (default: 8501)")
    add("--poll", type=float, default=1.0, help="seconds between looks for versions (default: 1)")
    add("--newest", type=int, default=1, help="how many versions, from the highest down (default: 1)")
    add("--versions", type=int, nargs="+", default=(), help="just these versions: to roll back")
    add("--label", action="append", default=[], metavar="LABEL=VERSION", help="may be given again")
    add("--max-batch", type=int, default=32, help="rows computed at once, at most (default: 32)")
    add("--wait-ms", type=float, default=2.0, help="wait for others to join a batch (default: 2)")
    add("--no-batching", dest="batching", action="store_false", help="compute each request by itself")
    add("--max-mb", type=float, default=16.0, help="MB of a request, at most (default: 16)")
    add("--max-instances", type=int, default=256, help="instances in a request, at most (default: 256)")
    add("--max-queue", type=int, default=1024, help="rows that may wait (default: 1024)")
    add(
        "--timeout",
        type=float,
        default=30.0,
        help="seconds to send a request, and to wait for its answer (default: 30)",
    )
    options = vars(parser.parse_args(argv))
    pairs = [text.rpartition("=") for text in options.pop("label")]
    labels = {label: int(number) if number.isdecimal() else number for label, _, number in pairs}
    _common.import_tensorflow()
    from kresnets.serving.server import run

    run(**options, labels=labels)


if __name__ == "__main__":
    _common.run(main)
