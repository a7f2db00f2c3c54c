"""The folder of a fine-tuning run: its files, its phase, and what of it can be asked."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from kresnets._util import files

if TYPE_CHECKING:
    import keras

    from kresnets.data import Data
    from kresnets.decoding import Decoding
    from kresnets.preprocess import Preprocessing

Phase = Literal["new", "begun", "trained", "finished"]


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a run's folder.

    Args:
        pattern: its name, or a glob.
        what: what is in it.
        until: when it goes: `"kept"`, or `"finished"`.
        caption: of a picture in the report.
    """

    pattern: str
    what: str
    until: Literal["kept", "finished"] = "kept"
    caption: str = ""


# All that a run writes. The guide on runs shows this table; `RunFolder` clears by it.
FILES = (
    File(
        "config.json",
        "the arguments, the resolved recipe, class names, size, preprocessing and decoding, digest of the data",
    ),
    File("plan.txt", "what the recipe was resolved to, as the log shows it"),
    File("files.csv", "which files the images are: class, SHA-256, size and time of each"),
    File("bad_images.txt", "images that were left out as damaged, with the reason"),
    File("history.csv", "a row an epoch: stage, seconds, losses, metrics, learning rate of each group"),
    File("stopped.txt", "why training stopped before its end: numbers that are none; remove it to try once more"),
    File("schedule.toml", "the stages as they happened; `--schedule` repeats them"),
    File("model.keras", "the trained model"),
    File("learning_rate.png", "the range test of `--learning-rate find`"),
    File("curves.png", "losses, accuracies and rates by epoch", caption="Training"),
    File("confusion.png", "the confusion matrix on the test images", caption="Confusion"),
    File("precision_recall.png", "of several labels: precision against recall of each", caption="Precision and recall"),
    File("scatter.png", "of numbers: the answers against the truth", caption="Answers against the truth"),
    File("mistakes.png", "the worst mistakes, with Grad-CAM", caption="Worst mistakes"),
    File("predictions.csv", "a row for each validation and test image: label, answer, every probability"),
    File("label_issues.csv", "labels that may be wrong, the likeliest first, and what each image rather is"),
    File("near_duplicates.csv", "test images that are nearly the same as a training image, where there are any"),
    File("near_duplicates.png", "some of them beside those training images"),
    File("learning_curve.png", "accuracy by how many images were learned from, and what twice as many would give"),
    File("augmented.png", "training images as augmentation changed them", caption="What the network saw"),
    File("threshold.png", "of two classes: what each threshold would find"),
    File("feature_map.png", "the images in two dimensions, as the pretrained trunk sees them"),
    File("neighbours.png", "mistakes, and the training images that they are most like"),
    File("calibration.png", "how often answers of a probability are right"),
    File("report.html", "the page"),
    File("metrics.json", "what the test images say; written last: a run that has it is finished"),
    File("run.json", "which training the checkpoints are of, so that another one is not resumed from them", "finished"),
    File("epoch-*.weights.h5", "weights and optimizer after the last epoch that ended", "finished"),
    File("best-*.npz", "weights of the epoch with the lowest validation loss", "finished"),
    File("stages.json", "what each epoch measured, by which the stages go on", "finished"),
    File("stage-best-*.npz", "weights and optimizer of a stage's best epoch", "finished"),
    File("stage-begin-*.npz", "weights and optimizer with which a stage began", "finished"),
    File("done", "the training is over, though the test images are not judged yet", "finished"),
    File("features", "what frozen layers give, kept for the next epoch", "finished"),
    File("images", "large images, decoded and resized once", "finished"),
    File(".tmp-*", "what is being written, or what a kill left of it", "finished"),
)
PICTURES = {file.caption: file.pattern for file in FILES if file.caption}
# What older versions did not ask for, as they would have answered.
SINCE = {
    "columns": None,
    "bits": None,
    "background": "white",
    "group_by": None,
    "resize": "crop",
    "padding": None,
    "recompute": False,
    "recipe": None,
    "preprocess": None,
    "keep": None,
    "pretrained": "auto",
    "head": None,
    "epochs": None,
    "momentum": None,
    "task": "auto",
    "label_separator": None,
    "loss": "mse",
    "folds": None,
    "fold": None,
    "monitor": None,
    "sampling": "natural",
    "channels": 3,
}


class RunFolder:
    """A run's folder, to write, to go on with, or to ask.

    Args:
        path: of the folder; it need not be there.

    Example:
        >>> RunFolder("runs/none-of-this-name").phase
        'new'
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    @property
    def phase(self) -> Phase:
        """How far the run has come: `"new"`, `"begun"`, `"trained"` (not judged yet) or `"finished"`."""
        phases: tuple[tuple[str, Phase], ...]
        phases = (("metrics.json", "finished"), ("done", "trained"), ("config.json", "begun"))
        return next((phase for name, phase in phases if (self / name).exists()), "new")

    # Writing.

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out while this one writes; remove what a run that did not begin has left.

        Raises:
            ValueError: where the path is a file, or another process works on the folder.
        """
        with files.only_writer(self.path):
            before = {path.name for path in self.path.iterdir()}
            try:
                yield
            finally:
                if self.phase == "new":  # what it left goes, nothing else
                    self._remove({"images", "learning_rate.png"} - before)
                elif self.phase == "finished":  # perhaps by an earlier process
                    self._remove(("images",))

    def check(self, arguments: dict[str, Any], overwrite: bool) -> Phase:
        """Tell how far a run with these arguments has come here; one that `overwrite` will replace is `"new"`.

        Raises:
            ValueError: where the folder holds something else, or a run with other arguments.
        """
        if self.phase == "new":
            strange = [path.name for path in self.path.iterdir() if not self._is_ours(path)]
            if strange:
                raise ValueError(f"--out {self} holds {strange[0]!r} and is no run: give another folder.")
            return "new"
        earlier = self._arguments()
        if earlier is None:
            if overwrite:
                return "new"
            raise ValueError(
                f"{self / 'config.json'} is damaged or none of finetune's: give another --out, or --overwrite to "
                "replace the run."
            )
        if earlier == arguments:
            return "new" if overwrite and self._replaceable() else self.phase
        if overwrite:
            return "new"
        raise ValueError(made_with_another(self, earlier, arguments))

    def _arguments(self):
        try:
            return SINCE | dict(self._saved()["arguments"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def make_room(self, config: dict[str, Any], overwrite: bool = False) -> None:
        """Clear what `--overwrite` replaces, now that the new run can begin.

        Raises:
            ValueError: where the run that is to be gone on with learned from other images.
        """
        if self.phase == "new":
            return
        earlier = {} if self._arguments() is None else dict(self._saved())
        others = earlier.get("data") != config["data"] or _contents_differ(earlier, config["contents"])
        if self._arguments() != config["arguments"] or overwrite and (others or self._replaceable()):
            self._remove(file.pattern for file in FILES)
        elif others:
            raise ValueError(
                f"The images or their labels have changed since {self} was begun{self._changes()}: give another --out, "
                "or --overwrite to replace it."
            )

    def begin(self, config: dict[str, Any], data: "Data") -> None:
        """Write what the run is, and which images it leaves out."""
        names = [(name if name.isprintable() else repr(name), reason) for name, reason in data.bad]
        files.write_text(self / "bad_images.txt", "".join(f"{name}\t{reason}\n" for name, reason in names))
        if os.path.exists(os.path.expanduser(config["arguments"]["data"])):  # a data set's name stands for its content
            from kresnets.data import manifest

            manifest.write(self / "files.csv", data.files)
        files.write_json(self / "config.json", config, indent=1)

    def finish(self, numbers: dict[str, Any]) -> None:
        """Write what the test images say. Only then is the state of no more use: a run cut off before goes on from
        it."""
        files.write_json(self / "metrics.json", numbers, indent=1)
        self._remove(file.pattern for file in FILES if file.until == "finished")

    # Asking.

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds.

        Raises:
            ValueError: where it is missing, or damaged.
        """
        if not (self / "config.json").is_file() and (self / "fold-1").is_dir():
            raise ValueError(f"{self} holds the runs of folds: give one of them, such as {self / 'fold-1'}.")
        if not (self / "config.json").is_file():
            raise ValueError(f"{self} is no run: it has no config.json, which `kresnets finetune` writes there.")
        try:
            config = dict(self._saved())
            config["command"]
            dict(config.get("arguments") or {})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self / 'config.json'} is damaged, or none that `kresnets finetune` wrote.") from error
        return config

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What `metrics.json` holds, or None before the run is finished.

        Raises:
            ValueError: where it is damaged.
        """
        path = self / "metrics.json"
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): remove it, and the model card says nothing of metrics."
            ) from error

    def load(self) -> "tuple[keras.Model, list[str] | None, Preprocessing | None]":
        """Load the trained model, its class names and its `kresnets.Preprocessing`.

        Raises:
            ValueError: where the run has no model yet, or is of a version that is not known.
        """
        config = self.config
        if not (self / "model.keras").is_file():
            stopped = self / "stopped.txt"
            raise ValueError(
                f"The run {self} has no model: {stopped.read_text(encoding='utf-8')}"
                if stopped.is_file()
                else f"The run {self} is not finished (no model.keras yet): go on with it by {config['command']}"
            )
        import keras

        model = keras.saving.load_model(self / "model.keras", compile=False)
        return model, config.get("class_names"), self._preprocessing if config.get("preprocess") else None

    @property
    def decoding(self) -> "Decoding":
        """How files became pixels when the run began.

        Raises:
            ValueError: where it does not say so in a way that is known.
        """
        return self._preprocessing.decoding

    @property
    def _preprocessing(self):
        from kresnets.preprocess import Preprocessing

        try:
            return Preprocessing.of_data(self.config.get("preprocess") or {})
        except (ValueError, TypeError) as error:  # a field that only a later version knows
            raise ValueError(
                f"{self / 'config.json'} says how images are preprocessed, but not in a way that is known: {error}"
            ) from error

    def images(self) -> "Data":
        """Load the images that the run learned from and was judged by.

        Raises:
            ValueError: where they are not there, or not the same any more.
        """
        config = self.config
        given, wanted = config.get("arguments"), ("data", "limit", "seed", "bad_images")
        if not given or not given.keys() >= set(wanted):
            raise ValueError(f"{self} does not say which images are its own.")
        try:
            data = load_images(given, self.decoding)
        except (ValueError, OSError, ImportError) as error:
            if os.path.exists(os.path.expanduser(given["data"])) or os.path.isabs(given["data"]):
                raise
            raise ValueError(
                f"{error} (Where {given['data']!r} is a path, it is relative to the folder in which `kresnets "
                f"finetune` was run for {self}: run this from there.)"
            ) from error
        if data_digest(data) != config.get("data") or _contents_differ(config, data.contents):
            raise ValueError(
                f"The images or their labels in {given['data']} have changed since {self} learned "
                f"them{self._changes()}."
            )
        return data

    def changes(self) -> str:
        """Say how the files in the data's folder differ from those that the run noted; nothing where they do not.

        Of a run that noted none, and of a data set that is no folder and no CSV file, nothing is known.
        """
        noted = self / "files.csv"
        if not noted.is_file():
            return ""
        from kresnets.data import manifest
        from kresnets.data.sources import is_file_source, list_source

        arguments = self.config["arguments"]
        if not is_file_source(arguments["data"]):
            return "there is nothing of this name"
        try:
            return manifest.changes(
                manifest.read(noted),
                list_source(
                    arguments["data"],
                    None,
                    arguments.get("columns"),
                    arguments.get("task", "auto"),
                    arguments.get("label_separator"),
                ),
            )
        except (ValueError, OSError) as error:
            return f"they cannot be listed: {error}"

    def _replaceable(self):
        """Whether `--overwrite` replaces the run though its arguments are the same: where its images have changed or,
        in a run of before they were noted, may have; and where it ended at numbers that are none."""
        arguments = self._arguments() or {"data": ""}
        unknown = not (self / "files.csv").exists() and os.path.exists(os.path.expanduser(arguments["data"]))
        return unknown or (self / "stopped.txt").exists() or bool(self.changes())

    def _changes(self):
        told = self.changes()
        return f" ({told})" if told else ""

    def _saved(self) -> Any:
        return json.loads((self / "config.json").read_text(encoding="utf-8"))

    def _is_ours(self, path: pathlib.Path) -> bool:
        """Whether a run that did not begin can have left this."""
        if path.name == "images" and path.is_dir():  # a user's folder may have that name
            return all(one.match("images-*.npy") or one.match(".tmp-*") for one in path.iterdir())
        return any(path.match(file.pattern) for file in FILES)

    def _remove(self, patterns: Any) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def made_with_another(folder: object, earlier: dict[str, Any], arguments: dict[str, Any]) -> str:
    """Say by which options the command that began a folder differs from this one."""
    differing = []
    for name in sorted({*earlier, *arguments}):
        before, now = (str(given.get(name)) for given in (earlier, arguments))
        # A file stands here as all that it says.
        shown = f" ({before}, now {now})" if max(len(before), len(now)) <= 100 else ""
        if earlier.get(name) != arguments.get(name):
            differing.append(f"--{name.replace('_', '-')}{shown}")
    options = ", ".join(differing)
    return f"--out {folder} was made with another {options}: give another folder, or --overwrite to replace it."


def load_images(arguments: dict[str, Any], decoding: "Decoding | None" = None) -> "Data":
    """Load the images that the arguments of a command name, as they say or as `decoding` does."""
    from kresnets.data import load_data

    given = SINCE | arguments
    background = None if given["background"] == "none" else given["background"]
    return load_data(
        given["data"], given["limit"], given["seed"], given["bad_images"], columns=given["columns"],
        bits=given["bits"], background=background, decoding=decoding,
        resize=given["resize"], padding=given["padding"], group_by=given["group_by"],
        task=given["task"], label_separator=given["label_separator"],
        fold=given["folds"] and (given["fold"], given["folds"]), channels=given["channels"],
        index=given.get("index", "auto"),
    )  # fmt: skip


def _contents_differ(config: dict[str, Any], contents: str) -> bool:
    """Whether a run learned from files of other contents; one of before this was noted is taken at its word."""
    return config.get("contents", contents) != contents


def data_digest(data: "Data") -> str:
    """Return what tells the names and labels of images, and their parts, from others."""
    parts = (data.train, data.validation, data.test)
    # Runs of before there were weights are found by what they wrote.
    weights = "" if data.train.weights is None else repr(data.train.weights.tolist())
    text = "\n".join(repr((part.ids, part.labels.tolist())) for part in parts) + weights
    return hashlib.sha256(text.encode()).hexdigest()
