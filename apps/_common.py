"""What the apps share: quiet logs, reading a run, and an error as one sentence with exit code 2, not a traceback."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read by TensorFlow's C++ when it is loaded


def tell_error(error, sentence):
    """Tell what ended the app; another function may take this one's place."""
    print(f"{os.path.basename(sys.argv[0])}: {sentence}", file=sys.stderr)


def import_tensorflow():
    """Import TensorFlow without the lines its C++ prints before any log level applies, and return it."""
    with _stderr_closed():
        import tensorflow as tf

        tf.config.list_physical_devices()
        if os.environ.get("KERAS_BACKEND") == "jax":
            tf.config.set_visible_devices([], "GPU")  # it only reads images, and would take the memory that JAX needs
    tf.get_logger().setLevel("ERROR")
    return tf


def read_config(folder):
    """Return what a run of apps/finetune.py wrote into its config.json."""
    folder = pathlib.Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no run: it has no config.json, which apps/finetune.py writes there.")
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        config["command"]
        dict(config.get("arguments") or {})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged, or none that apps/finetune.py wrote.") from error
    return config


def load_run(folder):
    """Load a run of apps/finetune.py, to ask it: the model, its class names and its `kresnets.Preprocessing`."""
    folder, config = pathlib.Path(folder), read_config(folder)
    if not (folder / "model.keras").is_file():
        raise ValueError(f"The run {folder} is not finished (no model.keras yet): go on with it by {config['command']}")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the run was trained with
    import_tensorflow()
    import keras

    from kresnets.preprocess import Preprocessing

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    try:
        preprocessing = Preprocessing(**config["preprocess"]) if config.get("preprocess") else None
    except (ValueError, TypeError) as error:  # a field that only a later version knows
        raise ValueError(
            f"{folder / 'config.json'} says how images are preprocessed, but not in a way that is known: {error}"
        ) from error
    return model, config.get("class_names"), preprocessing


def load_photographs(run):
    """Load the photographs that a run learned from and was judged by.

    Args:
        run: path of its folder.

    Raises:
        ValueError: where they are not there, or not the same any more.
    """
    from kresnets.data import load_data

    config = read_config(run)
    given = config.get("arguments")
    wanted = ("data", "limit", "seed", "bad_images")
    if not given or not given.keys() >= set(wanted):
        raise ValueError(f"{run} does not say which photographs are its own.")
    try:
        data = load_data(*(given[name] for name in wanted))
    except (ValueError, OSError, ImportError) as error:
        if os.path.exists(os.path.expanduser(given["data"])) or os.path.isabs(given["data"]):
            raise
        raise ValueError(
            f"{error} (Where {given['data']!r} is a path, it is relative to the folder in which apps/finetune.py was "
            f"run for {run}: run this from there.)"
        ) from error
    if digest(data) != config.get("data"):
        raise ValueError(f"The photographs or their labels in {given['data']} have changed since {run} learned them.")
    return data


def digest(data):
    """Return what tells photographs and labels from others."""
    parts = (data.train, data.validation, data.test)
    text = "\n".join(repr((part.ids, part.labels.tolist())) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def positive_int(text):
    """Read an argument that counts something; for `type=` of argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


@contextlib.contextmanager
def _stderr_closed():
    # On the descriptor, not on sys.stderr: C++ writes past Python.
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def run(main):
    """Call an app's `main` and end the process with what it returns (None: 0).

    Args:
        main: function without arguments that returns an exit code. What bad input raises in the library (ValueError,
            OSError, RuntimeError, ImportError) is told in one line on stderr, with exit code 2; any other exception is
            a defect and keeps its traceback. Warnings are told in one line each.

    Example:
        >>> run(lambda: 0)
        Traceback (most recent call last):
        SystemExit: 0
    """
    warnings.showwarning = _show_warning
    _open_streams()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    try:
        code = main() or 0
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        tell_error(error, _sentence(error))
        code = 2
    except Exception as error:
        # TensorFlow's own errors (out of memory, a file gone since it was checked) have no base class in Python's.
        if not type(error).__module__.startswith("tensorflow."):
            raise
        first = _sentence(error).split(" [[")[0][:300]
        tell_error(error, f"TensorFlow gave up ({type(error).__name__}): {first}")
        code = 2
    sys.exit(code)


def _open_streams():
    """Give a stream that was closed by whoever started us (`>&-`) somewhere to go; in order, so with its own number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"{os.path.basename(sys.argv[0])}: warning: {_sentence(message)}", file=file or sys.stderr)


def _sentence(error):
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def write_text(path, text):
    """Write a text beside its place and rename it, so that nobody reads half of it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
