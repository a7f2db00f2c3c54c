"""The end of a search: its winner judged beside the default, and what it hands over."""

import dataclasses
import json
import shutil

from kresnets._util import files
from kresnets.data.part import epoch_variable
from kresnets.preprocess import preprocessing_of
from kresnets.transfer.plan import resolve
from kresnets.transfer.recipe import Recipe
from kresnets.tuning import folder as search_folder
from kresnets.tuning import verdict
from kresnets.tuning.choice import choose, differing
from kresnets.tuning.records import read_records


def conclude(folder, tuner, shown, data, hypermodel, options, beside):
    """Judge the winner, and write what the search has found."""
    best, choice, stopped = shown.best(), choice_so_far(shown, hypermodel), tuner.oracle.stopped_because
    hand_over(folder, shown, hypermodel, choice)
    if stopped or best is None:
        raise RuntimeError(stopped or "No trial was completed: trials.csv says why each failed.")
    values = ", ".join(f"{name} {value}" for name, value in best["values"].items()) or "what the search started from"
    print(
        f"The best of {len(tuner.oracle.trials)} trials is {best['trial_id']}: {values}: {shown.objective.name} "
        f"{best['score']:.4g}.\n{choice.sentence}",
        flush=True,
    )
    path = folder / "verdict.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    recipes = _recipes(hypermodel, choice, beside)
    fields = {name: json.loads(json.dumps(recipe.as_data())) for name, recipe in recipes.items()}
    if found.get("recipes") != fields:  # else of an earlier winner, of fewer trials
        keep = "Keep the recipe that you gave" if options.recipe else "Keep the default"
        why = f"{keep}: {choice.sentence[0].lower()}{choice.sentence[1:]}"
        found = _compared(folder, recipes, data, hypermodel, options, why) | {"recipes": fields}
        found |= {"trial_id": choice.record["trial_id"]}
        files.write_json(path, found, indent=1)
        search_folder.clear(folder, ("answers-winner-*.json",))
    print(f"Trained as by kresnets finetune, judged on {len(data.test)} test images (95 % intervals):")
    verdict.tell(found)
    tuner.clear()
    shutil.rmtree(folder / "images", ignore_errors=True)
    hand_over(folder, shown, hypermodel, choice, found)
    if (folder / "search.html").exists():  # else `Live` has said what is missing
        print(f"The page: {folder / 'search.html'}")
    fields = json.loads((folder / "best_recipe.json").read_text())
    print(
        f"The recipe, for kresnets finetune --recipe: {folder / 'best_recipe.json'}"
        f"{' (the default: nothing differs from it)' if set(fields) == {'rule'} else ''}"
    )
    return 0


def hand_over(folder, shown, hypermodel, choice, found=None):
    """Write the tables, the page, and the recipe that is handed over."""
    shown.write_csv()
    facts, recipe = hypermodel.plan.facts, hypermodel.plan.recipe
    if found and found["worse"]:
        recipe = _default(hypermodel)
    elif _won(choice):
        recipe = hypermodel.space.recipe(choice.record["values"])
    if choice.record is not None:
        files.write_json(folder / "best_recipe.json", differing(recipe, facts))
    shown.page(winner=found, notes=[choice.sentence])


def choice_so_far(shown, hypermodel):
    """Return what the trials so far say is to be handed over."""
    return choose(read_records(shown.project), shown.objective, hypermodel.plan.facts.validation)


def _won(choice):
    """Whether anything else than what the search starts from is handed over."""
    return choice.record is not None and not choice.record["default"]


def _default(hypermodel):
    """Return the recipe of `kresnets finetune` without --recipe."""
    return resolve(Recipe(seed=hypermodel.base.seed), hypermodel.plan.facts).recipe


def _recipes(hypermodel, choice, beside):
    """Return what is judged on the test part, by name."""
    found, default = {}, _default(hypermodel)
    start = hypermodel.plan.recipe
    if _won(choice):
        found["winner"], start = hypermodel.space.recipe(choice.record["values"]), hypermodel.space.recipe({})
    found["default"] = default
    if start != default:
        found["start"] = start
    found |= {name: resolve(recipe, hypermodel.plan.facts).recipe for name, recipe in beside.items()}
    return {name: dataclasses.replace(recipe, seed=default.seed) for name, recipe in found.items()}


def _compared(folder, recipes, data, hypermodel, options, why):
    def train(recipe):
        model = hypermodel.make(options.seed)
        preprocessing = preprocessing_of(model)
        size, crop = model.input_shape[1], preprocessing.crop
        learned = data.train.batches(options.batch_size, size, crop, options.seed, epoch_variable(), folder / "images")
        judged = data.validation.batches(options.batch_size, size, crop, cache=folder / "images")
        hypermodel.train(model, recipe, learned, judged)
        return model, preprocessing

    return verdict.compare(folder, train, data, recipes, why)
