"""The judgement: recipes trained as `kresnets finetune` trains them, and held against the default on the test part."""

import dataclasses
import hashlib
import json

import numpy as np

from kresnets._util import files
from kresnets.report import metrics
from kresnets.task import scores_of

_METRICS = ("accuracy", "balanced_accuracy", "auc")


def judge(folder, train, data, recipes, why=""):
    """Return the verdict on the test part, which is used nowhere else; what was found before an interruption is kept.

    Args:
        folder: the search's folder.
        train: function of a recipe that returns a trained model and its `Preprocessing`.
        data: `kresnets.data.Data`.
        recipes: dict `default` and perhaps `winner`, `start` and others -> `Recipe`.
        why: a sentence for where there is no winner. Defaults to none.

    Returns:
        Dict `default` and the others (see `kresnets.report.metrics.evaluate`), `names` of all of them, `sentence`,
        `difference` of the winner (else of what the search started from) and the default, `worse`: whether a winner did
        worse than the default, by more than chance.
    """
    answers = {}
    for name, recipe in recipes.items():
        text = json.dumps(dataclasses.asdict(recipe), sort_keys=True)  # an earlier winner's are not this one's
        path = folder / f"answers-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            print(f"The {name} recipe trains on {len(data.train)} images ...", flush=True)
            model, preprocessing = train(recipe)
            images = data.test.batches(64, model.input_shape[1], preprocessing.crop, cache=False)
            given = scores_of(model).predicted(model, images.map(lambda x, y, to=preprocessing: to(x, "channels_last")))
            files.write_json(path, np.asarray(given, "float64").tolist())
        answers[name] = np.array(json.loads(path.read_text()))
    labels, names = data.test.labels, list(data.class_names)
    found = {name: metrics.evaluate(labels, given, names) for name, given in answers.items()}
    found["names"] = list(answers)
    judged = next((name for name in ("winner", "start") if name in answers), None)
    if judged is None:
        return found | {"sentence": why, "worse": False}
    gain = metrics.difference(labels, answers[judged], answers["default"])
    worse = judged == "winner" and gain["interval"][1] < 0
    sentence = _sentence("The search's recipe", gain, len(labels))
    if judged != "winner":
        sentence = f"{why} {_sentence('It', gain, len(labels))}"
    return found | {"difference": gain, "sentence": sentence, "worse": worse}


def _sentence(subject, gain, count):
    low, high = gain["interval"]
    by = f"{gain['accuracy']:+.3f} (95 %: {low:+.3f} to {high:+.3f}) in accuracy on {count} test images"
    if low > 0:
        return f"{subject} beat the default: {by}."
    if high < 0:
        return f"{subject} did worse than the default: {by}. Keep the default."
    return f"{subject} did not beat the default: {by}, which may be chance. The default will do."


def tell(verdict):
    """Print the verdict."""
    for name in verdict["names"]:
        numbers = verdict[name]
        ends = {metric: numbers[f"{metric}_interval"] for metric in _METRICS if numbers.get(metric) is not None}
        texts = (f"{metric} {numbers[metric]:.3f} ({low:.3f} to {high:.3f})" for metric, (low, high) in ends.items())
        print(f"  {name:8} {', '.join(texts)}")
    print(verdict["sentence"])
