"""Ask a server what is on photographs: TF Serving itself, or `kresnets serve`, by REST or gRPC.

    python apps/client.py cells photo1.jpg photo2.png
    python apps/client.py cells photo1.jpg --server localhost:8500 --grpc

REST needs nothing but Python; gRPC needs `pip install 'kresnets[serving]'` and TF Serving, as `kresnets serve` speaks
only REST. Files that are no image, or that the server refuses, get a line that says so, and the exit code is 1.
"""

import argparse
import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request

from _common import import_tensorflow, positive_int, run

from kresnets.cli.predict import print_table, read

_BATCH = 16  # photographs in a request
_BYTES = 10_000_000  # of a request with several photographs; `kresnets serve` takes 16 MB
_LARGE = 1_000_000  # bytes of a request that a server may hang up on before it has all of it
# Statuses that may be the fault of one photograph, so that the others are worth another question.
_BY_FILE = {400, 413, 500, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"}
_MESSAGE = 256 << 20  # bytes; gRPC's own limit for an answer is 4 MB


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="the model's name on the server")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="JPEG, PNG, GIF or BMP file")
    parser.add_argument("--server", help="host:port (default: localhost:8501, with --grpc localhost:8500)")
    parser.add_argument("--grpc", action="store_true", help="ask by gRPC")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=positive_int, help="(default: what the server chooses, the highest)")
    which.add_argument("--label", help="a version's label")
    parser.add_argument("--top", type=positive_int, default=3, help="labels per image, at most (default: 3)")
    parser.add_argument("--timeout", type=positive_int, default=60, help="seconds to wait for an answer (default: 60)")
    options = parser.parse_args(argv)

    server = options.server or ("localhost:8500" if options.grpc else "localhost:8501")
    predict = predict_grpc if options.grpc else predict_rest

    def ask(images):
        return predict(server, options.name, images, options.version, options.label, options.timeout)

    answers = []
    try:
        for contents in _batches(options.images):
            # A file that cannot be read still takes its row, so that rows and files stay together.
            images = [b"" if isinstance(each, str) else each for each in contents]
            answers += [_answer(*each, options.top) for each in zip(contents, _predictions(ask, images), strict=True)]
    finally:  # also where the server has gone meanwhile
        if answers:
            print_table(zip(options.images, answers))
    return 1 if any(isinstance(each, str) for each in answers) else 0


def _batches(files):
    """Yield lists of the contents of files, as many as go into a request; one that is larger goes by itself."""
    batch, size = [], 0
    for file in files:
        content = read(file)
        length = 0 if isinstance(content, str) else len(content) * 4 // 3
        if batch and (len(batch) == _BATCH or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(content)
        size += length
    yield batch


def _predictions(ask, images):
    """Return a prediction for each image, or a str that says why it was refused."""
    try:
        return ask(images)
    except Refused as refused:
        if refused.status in (404, "NOT_FOUND"):  # no such model or version: the same for all
            raise
        if len(images) > 1 and refused.status in _BY_FILE:
            return [prediction for image in images for prediction in _predictions(ask, [image])]
        return [f"refused: {refused.reason}"] * len(images)


class Refused(ValueError):
    """A server's refusal.

    Args:
        server: its address.
        reason: what it says.
        status: HTTP's number, or the name of gRPC's code.
    """

    def __init__(self, server, reason, status):
        super().__init__(f"{server} refused: {reason}")
        self.reason, self.status = " ".join(str(reason).split()), status


def _answer(content, prediction, top):
    if isinstance(content, str):
        return content
    if isinstance(prediction, str):
        return prediction
    if not prediction["valid"]:
        return "no image that can be decoded (JPEG, PNG, GIF or BMP)"
    return list(zip(prediction["labels"], prediction["scores"]))[:top]


def predict_rest(server, name, images, version=None, label=None, timeout=60):
    """Ask by REST what is on photographs.

    Args:
        server: "host:port", or a URL that ends before /v1, of TF Serving's REST port (8501) or of `kresnets serve`.
        name: of the model.
        images: list of the bytes of image files.
        version: int, or None for what the server chooses. Defaults to None.
        label: str, a version's label, or None. Defaults to None.
        timeout: seconds to wait for the answer. Defaults to 60.

    Returns:
        list of a dict for each image: `labels` (list of str), `scores` (list of float, falling), `valid` (bool).

    Raises:
        OSError: when the server cannot be reached.
        Refused: when it refuses, in its own words.
        ValueError: for an address that is none, or an answer that is none of a model exported by kresnets.
    """
    url = server if "://" in server else f"http://{server}"
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"{server} is no address of a server: give host:port, or a URL of http or https.")
    path = f"/v1/models/{urllib.parse.quote(name, safe='')}"
    if version is not None:
        path += f"/versions/{version}"
    elif label is not None:
        path += f"/labels/{urllib.parse.quote(label, safe='')}"
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    request = urllib.request.Request(
        url.rstrip("/") + path + ":predict",
        json.dumps({"signature_name": "serving_default", "instances": instances}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            document = json.load(response)
    except urllib.error.HTTPError as error:  # an OSError too, so it comes first
        raise Refused(server, _reason(error), error.code) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, BrokenPipeError | ConnectionResetError) and len(request.data) > _LARGE:
            size = f"{len(request.data) / 1e6:.0f} MB"
            raise Refused(server, f"it hung up while {size} were sent, which may be too much for it", 413) from None
        raise OSError(f"{server} cannot be asked ({reason}).") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{server} does not answer as TF Serving's REST interface does.") from None
    return _checked(server, document.get("predictions") if isinstance(document, dict) else None, len(images))


def _checked(server, predictions, count):
    """Return the predictions, if they are what a model exported by kresnets gives for so many images."""
    fits = isinstance(predictions, list) and len(predictions) == count
    if not fits or not all(map(_is_prediction, predictions)):
        raise ValueError(f"{server} does not answer as a model exported by kresnets.")
    return predictions


def _is_prediction(value):
    if not isinstance(value, dict) or not isinstance(value.get("valid"), bool):
        return False
    labels, scores = value.get("labels"), value.get("scores")
    if not isinstance(labels, list) or not isinstance(scores, list) or len(labels) != len(scores):
        return False
    return all(isinstance(each, str) for each in labels) and all(type(each) in (int, float) for each in scores)


def _reason(error):
    try:
        return json.load(error)["error"]
    except (ValueError, LookupError, TypeError, RecursionError, OSError, http.client.HTTPException):
        return f"status {error.code}"


def predict_grpc(server, name, images, version=None, label=None, timeout=60):
    """Ask by gRPC what is on photographs.

    Takes and gives what `predict_rest` does; `server` is "host:port" of TF Serving's gRPC port (8500).

    Raises:
        ImportError: without tensorflow-serving-api.
        OSError: when the server cannot be reached.
        Refused: when it refuses, in its own words.
        ValueError: for an answer that is none of a model exported by kresnets.
    """
    try:
        import grpc

        tf = import_tensorflow()  # which the protos import anyway, less quietly
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ImportError(f"gRPC needs tensorflow-serving-api ({error}): pip install 'kresnets[serving]'") from None
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, "serving_default"
    if version is not None:
        request.model_spec.version.value = version
    elif label is not None:
        request.model_spec.version_label = label
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string, [len(images)]))
    size = [(f"grpc.max_{way}_message_length", _MESSAGE) for way in ("send", "receive")]
    with grpc.insecure_channel(server, size) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise OSError(f"{server} cannot be asked ({error.details()}).") from None
            raise Refused(server, error.details(), error.code().name) from None
    try:
        labels, scores, valid = (tf.make_ndarray(outputs[key]).tolist() for key in ("labels", "scores", "valid"))
        predictions = [
            {"labels": [label.decode() for label in row[0]], "scores": row[1], "valid": row[2]}
            for row in zip(labels, scores, valid, strict=True)
        ]
    except (TypeError, ValueError, LookupError, AttributeError):  # outputs that are not there, or of another type
        predictions = None
    return _checked(server, predictions, len(images))


if __name__ == "__main__":
    run(main)
