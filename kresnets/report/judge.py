"""The end of a run: the test images, the pictures, the page."""

import numpy as np

from kresnets.devices.hardware import describe
from kresnets.preprocess import Preprocessing
from kresnets.report import calibration, label_issues, learning_curve, metrics, near_duplicates, predictions
from kresnets.report.answers import confusion, mistakes, worst_mistakes
from kresnets.report.gradcam import grad_cam
from kresnets.report.history import curves
from kresnets.report.page import html
from kresnets.runs.folder import PICTURES
from kresnets.task import scores_of
from kresnets.version import __version__


def judge(run, model, data, config, history, notes=(), seen=None):
    """Ask the model about the test part, once; write predictions.csv, the pictures, the page and, last, metrics.json.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        model: the trained model.
        data: `kresnets.data.Data`.
        config: what the run's config.json holds.
        history: what `fine_tune` returned.
        notes: sentences for the page. Defaults to none.
        seen: the `kresnets.transfer.frozen.Frozen` images of the run. Defaults to None, where its trunk was fresh: what
            is asked of a pretrained one is then left out.
    """

    size, preprocessing = config["size"], Preprocessing.of_data(config["preprocess"])
    asked = {"validation": data.validation, "test": data.test}
    said = {name: (part, _answers(model, part, size, preprocessing)) for name, part in asked.items()}
    predictions.write(run / "predictions.csv", data.class_names, said)
    labels, probabilities = data.test.labels, said["test"][1]
    numbers = metrics.evaluate(labels, probabilities, list(data.class_names))
    seconds = sum(history.history["seconds"])
    numbers |= {"seconds": seconds, "images_per_second": len(data.train) * len(history.epoch) / seconds}

    curves(run / "history.csv", run / "curves.png")
    confusion(labels, metrics.predict_classes(probabilities), list(data.class_names), run / "confusion.png")
    worst = worst_mistakes(labels, probabilities)
    images = data.test.pixels(size, worst, preprocessing.crop)
    heat = grad_cam(model, preprocessing(images, "channels_last"), np.argmax(probabilities[worst], axis=1))
    mistakes(images, labels[worst], probabilities[worst], heat, list(data.class_names), run / "mistakes.png")
    right = metrics.predict_classes(probabilities) == labels
    answers = {}

    def ask(question, name, answer):
        answers[question], numbers[name] = answer

    if seen is not None:
        ask("Are labels wrong?", "label_issues", label_issues.answer(run, data, seen))
    ask("Is the test honest?", "near_duplicates", near_duplicates.answer(run, data, config, right))
    if seen is not None:
        ask("Would more photographs help?", "learning_curve", learning_curve.answer(run, seen))
    ask("Can scores be trusted?", "calibration", calibration.answer(run, said))
    rows = [("class", "training", "validation", "test")]
    counts = [part.counts() for part in (data.train, data.validation, data.test)]
    rows += [(name, *(count[name] for count in counts)) for name in data.class_names]
    notes = [*history.notes, *notes, f"Trained on: {describe()}, kresnets {__version__}, {config['dtype']}."]
    # --epochs makes the stages longer or shorter, see the plan: what they were before would contradict it.
    scaled = ("head_epochs", "epochs_per_stage") if config["arguments"].get("epochs") else ()
    recipe = {name: value for name, value in config["recipe"].items() if name not in scaled}
    html(
        run / "report.html",
        f"{config['model']} on {data.name}",
        numbers,
        {**recipe, **{k: v for k, v in config["arguments"].items() if k not in config["recipe"]}},
        config["command"],
        {caption: run / name for caption, name in PICTURES.items()},
        notes,
        {
            "Mistakes on the test images": predictions.mistakes(run.path, data.test, probabilities),
            "Plan": history.plan.rows(),
            "Images": rows,
        },
        answers,
    )
    run.finish(numbers)


def _answers(model, part, size, preprocessing):
    """Return a model's probabilities of the images of a part, each drawn once."""
    images = part.batches(64, size, preprocessing.crop, cache=False)
    return scores_of(model).predicted(model, images.map(lambda x, y: preprocessing(x, "channels_last")))
