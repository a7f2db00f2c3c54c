"""The winner's judgement: trained on all that is not for testing, and held against the default recipe on the test part."""

import dataclasses
import hashlib
import json

import _common


def judge(folder, train, data, recipes, seed):
    """Return the verdict on the test part; what was found before an interruption is kept.

    Args:
        folder: the search's folder.
        train: function of a recipe and a `Part` to learn from that returns a trained model and its `Preprocessing`.
        data: `kresnets.data.Data`; its test part is used here, and nowhere else.
        recipes: dict `winner`, `default` and perhaps others -> `Recipe`.
        seed: of the bootstrap.

    Returns:
        Dict `winner`, `default` and the others (see `kresnets.metrics.evaluate`), `names` of all of them, `difference`
        of the first two, `sentence`.
    """
    import numpy as np

    from kresnets import metrics

    everything = data.train.joined(data.validation)
    answers = {}
    for name, recipe in recipes.items():
        text = json.dumps(dataclasses.asdict(recipe), sort_keys=True)  # an earlier winner's are not this one's
        path = folder / f"answers-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            print(f"The {name} recipe trains on {len(everything)} photographs ...", flush=True)
            given = _answers(*train(recipe, everything), data.test)
            _common.write_text(path, json.dumps(np.asarray(given, "float64").tolist()))
        answers[name] = np.array(json.loads(path.read_text()))
    labels, names = data.test.labels, list(data.class_names)
    found = {name: metrics.evaluate(labels, given, names, seed=seed) for name, given in answers.items()}
    gain = metrics.difference(labels, answers["winner"], answers["default"], seed)
    return {**found, "names": list(found), "difference": gain, "sentence": _sentence(gain, len(labels))}


def _answers(model, preprocessing, part):
    images = part.batches(64, model.input_shape[1], preprocessing.crop, cache=False)
    return model.predict(images.map(lambda x, y: preprocessing(x, "channels_last")), verbose=0)


def _sentence(gain, count):
    low, high = gain["interval"]
    told = f"{gain['accuracy']:+.3f} (95 %: {low:+.3f} to {high:+.3f}) in accuracy on {count} test images"
    if low > 0:
        return f"The search's recipe beat the default one: {told}."
    if high < 0:
        return f"The search's recipe did worse than the default one: {told}. Use the default."
    return f"The search did not beat the default recipe: {told}, which may be chance. The default will do."


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
