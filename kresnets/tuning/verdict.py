"""The judgement: recipes trained as `kresnets finetune` trains them, and held against the default on the test part."""

import dataclasses
import hashlib
import json

from kresnets._util import files
from kresnets.task import scores_of


def judge(folder, train, data, recipes, seed, why=""):
    """Return the verdict on the test part; what was found before an interruption is kept.

    Args:
        folder: the search's folder.
        train: function of a recipe that returns a trained model and its `Preprocessing`.
        data: `kresnets.data.Data`; its test part is used here, and nowhere else.
        recipes: dict `default` and perhaps `winner`, `start` and others -> `Recipe`.
        seed: of the bootstrap.
        why: a sentence for where there is no winner. Defaults to none.

    Returns:
        Dict `default` and the others (see `kresnets.report.metrics.evaluate`), `names` of all of them, `sentence`,
        `difference` of the winner (else of what the search started from) and the default, `worse`: whether a winner did
        worse than the default, by more than chance.
    """
    import numpy as np

    from kresnets.report import metrics

    answers = {}
    for name, recipe in recipes.items():
        text = json.dumps(dataclasses.asdict(recipe), sort_keys=True)  # an earlier winner's are not this one's
        path = folder / f"answers-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            print(f"The {name} recipe trains on {len(data.train)} images ...", flush=True)
            given = _answers(*train(recipe), data.test)
            files.write_json(path, np.asarray(given, "float64").tolist())
        answers[name] = np.array(json.loads(path.read_text()))
    labels, names = data.test.labels, list(data.class_names)
    found = {name: metrics.evaluate(labels, given, names, seed=seed) for name, given in answers.items()}
    found["names"] = list(answers)
    judged = next((name for name in ("winner", "start") if name in answers), None)
    if judged is None:
        return found | {"sentence": why, "worse": False}
    gain = metrics.difference(labels, answers[judged], answers["default"], seed)
    won, who = judged == "winner", "The search's recipe" if judged == "winner" else "It"
    sentence = f"{why} " * (not won) + _sentence(who, gain, len(labels))
    return found | {"difference": gain, "sentence": sentence, "worse": won and gain["interval"][1] < 0}


def _answers(model, preprocessing, part):
    images = part.batches(64, model.input_shape[1], preprocessing.crop, cache=False)
    return scores_of(model).predicted(model, images.map(lambda x, y: preprocessing(x, "channels_last")))


def _sentence(who, gain, count):
    low, high = gain["interval"]
    told = f"{gain['accuracy']:+.3f} (95 %: {low:+.3f} to {high:+.3f}) in accuracy on {count} test images"
    if low > 0:
        return f"{who} beat the default: {told}."
    if high < 0:
        return f"{who} did worse than the default: {told}. Keep the default."
    return f"{who} did not beat the default: {told}, which may be chance. The default will do."


def tell(verdict):
    """Print the verdict."""
    for name in verdict["names"]:
        numbers, told = verdict[name], []
        for metric in ("accuracy", "balanced_accuracy", "auc"):
            if numbers.get(metric) is not None:
                low, high = numbers[f"{metric}_interval"]
                told.append(f"{metric} {numbers[metric]:.3f} ({low:.3f} to {high:.3f})")
        print(f"  {name:8} {', '.join(told)}")
    print(verdict["sentence"])
