"""The judgement: recipes trained as `kresnets finetune` trains them, and held against the default on the test part."""

import hashlib
import json

import numpy as np

from kresnets._util import files
from kresnets.report import metrics
from kresnets.task import scores_of

_METRICS = ("accuracy", "balanced_accuracy", "auc")


def compare(folder, train, data, recipes, why=""):
    """Return the verdict on the test part, which is used nowhere else; what was found before an interruption is kept.

    Args:
        folder: the search's folder.
        train: function of a recipe that returns a trained model and its `Preprocessing`.
        data: `kresnets.data.Data`.
        recipes: dict `default` and perhaps `winner`, `start` and others -> `Recipe`.
        why: a sentence for where there is no winner. Defaults to none.

    Returns:
        Dict `default` and the others (see `kresnets.report.metrics.evaluate`), `names` of all of them, `failed`: why,
        of each whose training came to no numbers, `sentence`,
        `difference` of the winner (else of what the search started from) and the default, `worse`: whether a winner did
        worse than the default, by more than chance, or came to no numbers.
    """
    answers, failed = {}, {}
    for name, recipe in recipes.items():
        text = json.dumps(recipe.as_data(), sort_keys=True)  # an earlier winner's are not this one's
        path = folder / f"answers-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            print(f"The {name} recipe trains on {len(data.train)} images ...", flush=True)
            files.write_json(path, _answers(train, recipe, data))
        given = json.loads(path.read_text())
        if isinstance(given, dict):
            failed[name] = given["failed"]
        else:
            answers[name] = np.array(given)
    labels, names = data.test.labels, list(data.class_names)
    found = {name: metrics.evaluate(labels, given, names) for name, given in answers.items()}
    found |= {"names": list(answers), "failed": failed}
    judged = next((name for name in ("winner", "start") if name in recipes), None)
    others = "".join(f" The {name} recipe came to no numbers." for name in failed if name not in (judged, "default"))
    if judged is None:
        lost = f" The default came to no numbers: {failed['default']}" if "default" in failed else ""
        return found | {"sentence": f"{why}{lost}{others}", "worse": False}
    subject, before = ("The search's recipe", "") if judged == "winner" else ("It", f"{why} ")
    if judged in failed:
        gain, worse, sentence = None, judged == "winner", f"{subject} came to no numbers, and loses: {failed[judged]}"
    elif "default" in failed:
        gain, worse = None, False
        sentence = f"{subject} beat the default, which came to no numbers: {failed['default']}"
    else:
        gain = metrics.difference(labels, answers[judged], answers["default"])
        worse = judged == "winner" and gain["interval"][1] < 0
        sentence = _sentence(subject, gain, len(labels))
    return found | {"difference": gain, "sentence": f"{before}{sentence}{others}", "worse": worse}


def _answers(train, recipe, data):
    """Return a recipe's probabilities on the test part; a dict that says why, where its training came to no numbers:
    it has lost, and the others are still to be judged."""
    try:
        model, preprocessing = train(recipe)
    except FloatingPointError as error:
        return {"failed": str(error)}
    return np.asarray(scores_of(model).predicted(model, data.test, preprocessing), "float64").tolist()


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
    for name in verdict.get("failed", ()):
        print(f"  {name:8} came to no numbers")
    print(verdict["sentence"])
