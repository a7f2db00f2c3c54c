"""What the benches of the server share: pictures, a model whose answers differ, the server in a process of its own."""

import base64
import contextlib
import json
import pathlib
import queue
import re
import subprocess
import sys
import threading

import numpy as np

_SERVE = pathlib.Path(__file__).resolve().parents[1] / "serve.py"


def pictures(count, height=240, width=320):
    """Return the bytes of `count` JPEGs of smooth random colours with noise, all different."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (count, 3, 4, 3)).astype("float32")
    smooth = (tf.image.resize(image, (height, width), "bicubic").numpy() for image in coarse)
    noisy = (np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype("uint8") for image in smooth)
    return [tf.io.encode_jpeg(image).numpy() for image in noisy]


def classifiers(name, size, count, images):
    """Yield `count` states of a network, no two of which answer alike, nor one of them alike to two pictures, whose
    bytes `images` set the scale of the logits; `size` is None for the network's own."""
    import keras
    import tensorflow as tf

    import kresnets

    size = size or kresnets.SPECS[name].input_size
    keras.utils.set_random_seed(0)
    model = getattr(kresnets, name)(weights=None, classes=10, input_shape=(size, size, 3))
    decoded = [tf.image.resize(tf.io.decode_jpeg(image), (size, size)) for image in images[:16]]
    inputs = kresnets.preprocess_input(np.stack(decoded), mode="torch")
    features = keras.Model(model.input, model.layers[-1].input).predict(inputs, verbose=0)
    for seed in range(count):
        model.layers[-1].set_weights(head(features, 10, seed))
        yield model


def head(features, classes, seed):
    """Return the kernel and the bias of a Dense layer whose answers differ between the images with these features."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3 * features.std()
    kernel = np.random.default_rng(seed).normal(size=(len(mean), classes)) / spread[:, np.newaxis]
    kernel *= 2 / ((features - mean) @ kernel).std()
    return [kernel, -mean @ kernel]


def answers(folder, images):
    """Ask an exported version directly: a list of dicts label -> score, one for each picture."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    found = [model.signatures["serving_default"](image_bytes=tf.constant([image])) for image in images]
    return [dict(zip(each["labels"].numpy()[0].astype(str), each["scores"].numpy()[0].tolist())) for each in found]


def body(images, by_row=True):
    """Return a request for some pictures, as bytes."""
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    return json.dumps({"instances": encoded} if by_row else {"inputs": {"image_bytes": encoded}}).encode()


class Server:
    """apps/serve.py of a model's folder on a free port, in a process of its own; it answers at `url`, and has printed
    `lines`."""

    def __init__(self, folder, *arguments):
        command = [sys.executable, str(_SERVE), str(folder), "--port", "0", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines, self._new = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.url = self.said(r"(http://\S+) is a page", 120)[1]
        except BaseException:
            self.process.kill()
            raise

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._new.put(self.lines[-1])
        self._new.put(None)

    def said(self, pattern, seconds=60):
        """Wait for a line that was not read yet, and return the match."""
        with contextlib.suppress(queue.Empty):
            while (line := self._new.get(timeout=seconds)) is not None:
                if found := re.search(pattern, line):
                    return found
        raise RuntimeError(f"The server did not say {pattern!r} but: {self.lines[-20:]}")

    @property
    def memory(self):
        """Bytes that the process holds."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024

    def stop(self, seconds=60):
        """End it as a supervisor would, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
