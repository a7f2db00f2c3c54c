"""Requests that a server sends to itself before it answers anybody: TF Serving's warm-up file."""

import warnings

import tensorflow as tf

BATCHES = (1, 8, 32)
PLACE = ("assets.extra", "tf_serving_warmup_requests")


def write_warmup(folder, name, size):
    """Write warm-up requests for `serving_default` into a SavedModel, where tensorflow-serving-api is installed.

    One request for each batch of `BATCHES`, grey JPEGs of 4 to 3, for the server to trace, optimize and lay out once.

    Args:
        folder: pathlib.Path of the SavedModel.
        name: str, the model's name at the server.
        size: int, side of the model's images in pixels.

    Returns:
        pathlib.Path of the file, or None where there is none, with a warning that says how to get one.
    """
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ImportError:
        warnings.warn(
            "No warm-up file was written, so a server's first answers will be slow: pip install 'kresnets[serving]', "
            "and export again.",
            stacklevel=3,
        )
        return None
    file = folder.joinpath(*PLACE)
    file.parent.mkdir(exist_ok=True)
    grey = tf.io.encode_jpeg(tf.fill((size, size * 4 // 3, 3), tf.constant(127, tf.uint8))).numpy()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in BATCHES:
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name="serving_default"),
                inputs={"image_bytes": tf.make_tensor_proto([grey] * batch)},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
    return file


def requests(folder):
    """Read a SavedModel's warm-up file, as a server that replays it.

    Args:
        folder: pathlib.Path of the SavedModel.

    Returns:
        List of arrays of bytes, the `image_bytes` of each request; empty where there is no file.
    """
    file = folder.joinpath(*PLACE)
    if not file.is_file():
        return []
    from tensorflow_serving.apis import prediction_log_pb2

    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))
    ]
    return [tf.make_ndarray(log.predict_log.request.inputs["image_bytes"]) for log in logs]
