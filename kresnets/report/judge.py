"""The end of a run: the test images, the pictures, the page."""

import numpy as np

from kresnets.devices.hardware import describe
from kresnets.preprocess import Preprocessing
from kresnets.report import (
    augmented,
    calibration,
    feature_map,
    label_issues,
    learning_curve,
    metrics,
    multilabel,
    near_duplicates,
    predictions,
    regression,
    threshold,
)
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
    said = {name: (part, scores_of(model).predicted(model, part, preprocessing)) for name, part in asked.items()}
    numbers, right, wrong = _JUDGES[data.task](run, model, data, said, size, preprocessing)
    seconds = sum(history.history["seconds"])
    numbers |= {"seconds": seconds, "images_per_second": len(data.train) * len(history.epoch) / seconds}
    curves(run / "history.csv", run / "curves.png")
    answers, classes = {}, data.task == "classes"

    def ask(question, name, answer):
        answers[question], numbers[name] = answer

    if seen is not None and classes:
        ask("Are labels wrong?", "label_issues", label_issues.answer(run, data, seen))
    ask("Is the test honest?", "near_duplicates", near_duplicates.answer(run, data, config, right))
    if seen is not None and classes:
        ask("Would more photographs help?", "learning_curve", learning_curve.answer(run, seen))
    if classes:
        ask("Can scores be trusted?", "calibration", calibration.answer(run, said))
    if classes and len(data.class_names) == 2:
        ask("Which threshold?", "threshold", threshold.answer(run, said))
    if seen is not None and classes:
        known = feature_map.answer(run, data, config, seen, said["test"][1])
        answers["What does it know?"] = known[0]
    augmented.sheet(data.train, history.plan.recipe, size, preprocessing.crop, run / "augmented.png")
    rows = [("class" if classes else data.task[:-1], "training", "validation", "test"), *data.counted()]
    best = f", the best by {history.plan.recipe.monitor}" * (history.plan.recipe.keep == "best")
    kept = f"Kept: epoch {history.kept + 1} of {len(history.epoch)}{best or ', the last'}."
    notes = [kept, *history.notes, *notes, f"Trained on: {describe()}, kresnets {__version__}, {config['dtype']}."]
    # --epochs makes the stages longer or shorter, see the plan: what they were before would contradict it.
    scaled = ("head_epochs", "epochs_per_stage") if config["arguments"].get("epochs") else ()
    recipe = {name: value for name, value in config["recipe"].items() if name not in scaled}
    html(
        run / "report.html",
        f"{config['model']} on {data.name}",
        numbers,
        {**recipe, **{k: v for k, v in config["arguments"].items() if k not in config["recipe"]}},
        config["command"],
        {caption: run / name for caption, name in PICTURES.items() if (run / name).is_file()},
        notes,
        {
            "Largest errors on the test images" if data.task == "numbers" else "Mistakes on the test images": wrong,
            "Plan": history.plan.rows(),
            "Images": rows,
        },
        answers,
    )
    run.finish(numbers)


def _classes(run, model, data, said, size, preprocessing):
    """Judge classes: return the numbers, whether each test image is right, and the mistakes for the page."""
    labels, probabilities, names = data.test.labels, said["test"][1], list(data.class_names)
    predictions.write(run / "predictions.csv", names, said)
    answered = metrics.predict_classes(probabilities)
    confusion(labels, answered, names, run / "confusion.png")
    worst = worst_mistakes(labels, probabilities)
    images = data.test.pixels(size, worst, preprocessing.crop)
    heat = grad_cam(model, preprocessing(images, "channels_last"), np.argmax(probabilities[worst], axis=1))
    mistakes(images, labels[worst], probabilities[worst], heat, names, run / "mistakes.png")
    found = metrics.evaluate(labels, probabilities, names)
    return found, answered == labels, predictions.mistakes(run.path, data.test, probabilities)


def _labels(run, model, data, said, size, preprocessing):
    """Judge several labels, likewise; each is said from the threshold that validation chooses."""
    labels, probabilities, names = data.test.labels, said["test"][1], list(data.class_names)
    at = multilabel.thresholds(data.validation.labels, said["validation"][1])
    predictions.write(run / "predictions.csv", names, said, at)
    multilabel.precision_recall(labels, probabilities, names, run / "precision_recall.png")
    right = ((probabilities >= at) == (labels > 0.5)).all(1)
    return (
        multilabel.evaluate(labels, probabilities, names, at),
        right,
        multilabel.mistakes(run.path, data.test, probabilities, at),
    )


def _numbers(run, model, data, said, size, preprocessing):
    """Judge numbers, likewise; there is no right and wrong."""
    answers, names = said["test"][1], list(data.class_names)
    predictions.write(run / "predictions.csv", names, said)
    regression.scatter(data.test.labels, answers, names, run / "scatter.png")
    found = regression.evaluate(data.test.labels, answers, names, data.train.labels.mean(0))
    return found, None, regression.mistakes(run.path, data.test, answers)


_JUDGES = {"classes": _classes, "labels": _labels, "numbers": _numbers}
