"""The default: what a recipe's fields come to where they are left out, by the number of images and the trunk."""

import dataclasses
import math
from typing import Any

from kresnets.transfer.head import MOST_IMAGES
from kresnets.transfer.recipe import Recipe

RULE = 1  # its version; another rule, another number: a file of fields says by which one the rest was resolved

# What every rule has in common; each gives all fields that a recipe may leave out.
_COMMON = dict(
    ratio=0.5, optimizer="adamw", weight_decay=1e-4, schedule="cosine", warmup=0.1, augment="light", views=1,
    label_smoothing=0.0, mixup=0.0, ema=None,
)  # fmt: skip
_MOST_EPOCHS = 150
# Images from which on the early layers learn too. Measured (docs/claims/default-recipe.jsonl): with 85 they had better
# not, with 340 either way does, with 1,700 they had better.
_MANY = 500
_HEAD_STEPS, _SCRATCH_STEPS = 45, 600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rule looks at.

    Args:
        groups: names of the model's groups, the head last.
        images: number of images to learn from.
        steps: batches of an epoch.
        validation: number of images to validate with; 0 for none.
        classes: number of classes, or of labels.
        pretrained: whether the trunk was trained.
        why: how that is known, as the rest of a sentence.
        solvable: whether the head is one that can be solved, see `Recipe.head`. Defaults to True.
        task: what the scores mean, see `fine_tune`. Defaults to `"classes"`.
    """

    groups: tuple[str, ...]
    images: int
    steps: int
    validation: int
    classes: int
    pretrained: bool
    why: str
    solvable: bool = True
    task: str = "classes"


def default_fields(recipe: Recipe, facts: Facts) -> dict[str, Any]:
    """Return a value for every field that a recipe may leave out: a pure function of both.

    Args:
        recipe: the recipe, as given: what it says of one field may decide another.
        facts: what is known of the model and the data.
    """
    return (_pretrained if facts.pretrained else _fresh)(recipe, facts)


def _pretrained(recipe, facts):
    """The head first, then, gently and at once, what so many images can change for the better; the norms keep the
    statistics that they came with."""
    waits = recipe.advance == "plateau"  # for its stages one after the other
    stages = recipe.stages if not recipe.is_auto("stages") else None if waits else _deep_enough(facts)
    count = max(1, len(facts.groups) - 3 if stages is None else len(stages))
    head = recipe.head if not recipe.is_auto("head") else "solved" if _solves(recipe, facts) else "trained"
    return _COMMON | dict(
        head=head,
        head_epochs=0 if head == "solved" and stages != () and not waits else _epochs(_HEAD_STEPS, facts, least=3),
        stages=stages,
        epochs_per_stage=_epochs(_trunk_steps(_full_batches(facts)) / count, facts, least=3),
        learning_rate=1e-2,
        trunk_learning_rate=3e-4,
        batchnorm="frozen",
        keep=_kept(recipe),
    )


def _solves(recipe, facts):
    """Whether the head is solved: not where the recipe says how it trains, nor where nothing but the head will
    learn."""
    says = not recipe.is_auto("head_epochs") or not recipe.is_auto("learning_rate") or recipe.timetable is not None
    wanted = recipe.advance == "epochs" and recipe.stages != () and not says
    return wanted and facts.solvable and facts.images <= MOST_IMAGES


def _trunk_steps(images):
    """Return the steps of the unfrozen trunk: more images have more to tell, though less than in proportion."""
    return 10 * math.sqrt(images)


def _full_batches(facts):
    """Return the images of an epoch whose last batch is full: what a dataset of many batches says of their number, so
    that arrays of the same images come to the same plan."""
    return math.ceil(facts.images / facts.steps) * facts.steps


def _fresh(recipe, facts):
    """Everything learns from the first epoch on: nothing is there yet that could be spoiled."""
    return _COMMON | dict(
        head_epochs=0 if _everything(facts) and recipe.stages != () else _epochs(_SCRATCH_STEPS, facts, least=20),
        stages=_everything(facts),
        epochs_per_stage=_epochs(_SCRATCH_STEPS, facts, least=20),
        learning_rate=3e-3,
        trunk_learning_rate=3e-3,
        ratio=1.0,
        batchnorm="train",
        keep=_kept(recipe),
        head="trained",
    )


def _kept(recipe):
    """Return which epoch is kept: who names what is watched wants the best by it."""
    return "last" if recipe.monitor == "val_loss" else "best"


def _everything(facts):
    """Return the stages that unfreeze the whole trunk at once; a model may have other groups than kresnets' own, or
    none."""
    return facts.groups[:-1][:1]


def _deep_enough(facts):
    """Return the stages that unfreeze the later half of the groups, and with many images all of them."""
    groups = facts.groups
    return _everything(facts) if facts.images >= _MANY else groups[:-1][min(len(groups) // 2, len(groups) - 2) :][:1]


def _epochs(steps, facts, least):
    """Return the epochs that make so many steps; at most `_MOST_EPOCHS`, after which the same few images teach no
    more."""
    return min(max(least, math.ceil(steps / facts.steps)), _MOST_EPOCHS)
