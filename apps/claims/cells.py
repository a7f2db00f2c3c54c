"""The cells in which the default recipe is judged (a task and a number of images, drawn by the seed), and the peers
that it is judged against, as data."""

import functools
import json
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from claims import images, runner, scores, transfer
from kresnets.data.split import take
from kresnets.transfer import plan
from kresnets.transfer.default import Facts
from kresnets.transfer.recipe import Recipe

VALIDATION = 0.15  # of the images that a user has, as `kresnets finetune` parts them
_TEST = 1000  # of CIFAR-10's 10,000
CIFAR = "cifar10"


class Cell(NamedTuple):
    """A task, `"cifar10"` or a key of `images.TARGETS`; the images that a user has in all; pixels a side."""

    target: str
    n: int
    size: int


# What had no part in the choice of the recipe, which was made on elpv/poly and on the other half of CIFAR-10.
JUDGE = (*(Cell("elpv/mono", n, 128) for n in (75, 250, 806)), Cell(CIFAR, 400, 96), Cell("digits", 100, 96))
QUICK = (Cell("digits", 60, 32), Cell("elpv/mono", 40, 32))
# Where a trunk is carried that is taught here, on CIFAR-10.
TAUGHT = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128))
TEACHING = {"taught_size": 48, "taught_epochs": 6, "taught_rate": 3e-3, "taught_augment": "light"}

# The ways to fine-tune.
BATCH = 32
DTYPE = "mixed_bfloat16"
ALL_AT_ONCE, DOWNWARDS = ["stem"], ["stage4", "stage3", "stage2"]
# What a peer that is a recipe does not say itself. All is written out, so that a later change of a default of the
# library does not change what was measured.
BASE = dict(
    rule="recipe", head_steps=45, stages=ALL_AT_ONCE, steps=300,  # of the trunk in all
    learning_rate=1e-2, ratio=0.5, batchnorm="frozen", norm_momentum=0.9, augment="light", optimizer="adamw",
    weight_decay=1e-4, schedule="cosine", warmup=0.1, label_smoothing=0.0, mixup=0.0,
    pull=0.0, keeps="plain",  # words of the runs that the repository holds
)  # fmt: skip
TEXTBOOK = {"head": "trained", "head_epochs": 3, "learning_rate": 1e-3, "stages": DOWNWARDS, "epochs_per_stage": 3}
FOR_IMAGES = {"head": "trained", "stages": DOWNWARDS, "stage_steps": 45}
FRESH = {"head": "fresh", "ratio": 1.0, "batchnorm": "train"}
PEERS = {
    "regression": {"rule": "regression", "images": "train"},
    "regression, all": {"rule": "regression", "images": "all"},
    "head alone": FOR_IMAGES | {"stages": [], "augment": "none", "trunk_learning_rate": 3e-4},
    "textbook": TEXTBOOK | {"trunk_learning_rate": 1e-4},
    "for_images": FOR_IMAGES | {"trunk_learning_rate": 1e-3},
    "everything at once": FRESH | {"trunk_learning_rate": 1e-3, "as_long": True},
    "Keras's guide": {"rule": "guide", "head_epochs": 20, "epochs": 10, "head_rate": 1e-3, "rate": 1e-5},
    "fastai": {"rule": "fastai", "head_epochs": 1, "epochs": 10, "rate": 2e-3},
    "BiT": {"rule": "bit", "steps": 500, "rate": 3e-3},
}
SCRATCH = {"from scratch": FRESH | {"trunk_learning_rate": 3e-3, "steps": 600}}
SCRATCH_IN = (JUDGE[0], JUDGE[1], JUDGE[3])  # it is a dear one
# Seeds of the dear ones; but where a network from scratch is the demo's peer, it has all.
FEWER = {"everything at once": 2, "BiT": 2}
FEWER |= dict.fromkeys(("Keras's guide", "fastai", "textbook", "for_images", "from scratch"), 1)
# The weights that each peer's rule keeps, where it is not the last ones.
PEERS_KEEP = {"head alone": "best loss", "textbook": "best loss", "for_images": "best loss"}
CHOSEN = "the default"  # what is judged: what `fine_tune` does by itself


def setting_of(way, fields, cell, seed, network="ResNet50Thin", trunk="open_nsfw", dtype=DTYPE):
    """Return the setting of a way in a cell, with the epochs that its steps come to there; `fields` is the way's entry
    of `PEERS` or `SCRATCH`, None for the default; see `draw` and `network` for the rest."""
    told = {"task": "tune", "judged": True, **cell._asdict(), "way": way, "network": network, "trunk": trunk}
    told |= {"dtype": dtype, "seed": seed}
    if fields is None:
        return told | {"rule": "default", "recipe": plain(default(cell))}
    if fields.get("rule") == "regression":
        return told | fields
    steps = math.ceil(learning(cell.n) / BATCH)
    if "rule" in fields:
        told |= {"augment": "light", "norm_momentum": 0.9} | fields
        return told | ({"epochs": math.ceil(fields["steps"] / steps)} if "steps" in fields else {})
    told |= {name: value for name, value in (BASE | fields).items() if not name.endswith("steps")}
    told.setdefault("head_epochs", max(3, math.ceil(BASE["head_steps"] / steps)))
    if told["head"] != "trained":
        told["head_epochs"] = 0
    if told.pop("as_long", False):
        told["epochs_per_stage"] = default(cell).epochs_per_stage
    elif "stage_steps" in fields:
        told["epochs_per_stage"] = told["head_epochs"]
    told.setdefault("epochs_per_stage", max(1, math.ceil(fields.get("steps", BASE["steps"]) / steps)))
    return told


def plain(recipe):
    """Return the fields of a `kresnets.Recipe` as JSON reads them back."""
    return json.loads(json.dumps(recipe.as_data()))


def default(cell):
    """Return the `kresnets.Recipe` to which the default is resolved for a pretrained network of kresnets in a cell."""
    images, groups = learning(cell.n), ("stem", "stage1", "stage2", "stage3", "stage4", "head")
    known = {"images": images, "steps": math.ceil(images / BATCH), "validation": cell.n - images, "classes": 2}
    return plan.resolve(Recipe(), Facts(groups=groups, **known, pretrained=True, why="")).recipe


def cell_of(row):
    """Return the `Cell` of a setting or row."""
    return Cell(row["target"], row["n"], row["size"])


def learning(n):
    """Return how many of a user's `n` images are left to learn from."""
    return n - int(VALIDATION * n + 0.5)


@functools.lru_cache(maxsize=2)
def draw(cell, seed):
    """Draw a cell's images: the same test images for each seed, the user's other ones; the classes are in proportion
    in each part."""
    if cell.target == CIFAR:
        pixels, labels, test, test_labels = images.cifar10()
        half = len(labels) // 2
        pixels, labels, test, test_labels = pixels[:half], labels[:half], test[:_TEST], test_labels[:_TEST]
    else:
        drawn = images.target(cell.target, cell.size, "all", 0)
        (pixels, labels), test, test_labels = drawn.whole, drawn.test, drawn.test_labels
    order = np.random.default_rng((seed, 1)).permutation(len(labels))
    chosen = take(order.tolist(), labels.tolist(), cell.n)
    again = np.random.default_rng((seed, cell.n)).permutation(chosen)
    validation = np.array(take(again.tolist(), labels.tolist(), cell.n - learning(cell.n)))
    train = np.setdiff1d(chosen, validation)
    learned, validated = ((resized(pixels[rows], cell.size), labels[rows]) for rows in (train, validation))
    return images.Pictures(int(labels.max()) + 1, *learned, resized(test, cell.size), test_labels, *validated)


def resized(pixels, size):
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in pixels])


def network(setting, classes, kept):
    """Return the network of a setting with a new head, `trunk` being `"open_nsfw"`, `"cifar10"`: taught here and in the
    folder `kept`, or `"none"`."""
    if setting["trunk"] != CIFAR:
        return transfer.build(setting, classes)
    weights = _file(lesson(setting["dtype"]), kept)
    if not weights.exists():
        raise ValueError(f"{weights} is not there, though its lesson is done: remove that run, to teach it again.")
    return transfer.build(setting, classes, weights)


def lesson(dtype):
    """Return the setting in which the trunk is taught that the judged cells carry too."""
    return {"task": "teach", "network": transfer.PUPIL, "trunk": "none", "dtype": dtype, "seed": 0} | TEACHING


def teach(setting, kept):
    """Teach the trunk, and measure how good it is, with its own head, on test images of CIFAR-10."""
    path, size = _file(setting, kept), setting["taught_size"]
    pixels, labels, test, test_labels = images.cifar10()
    model = network(setting | {"size": size}, 10, kept)
    if not path.exists():
        transfer.teach(model, resized(pixels, size), labels, setting["taught_augment"], setting, path)
    model.load_weights(path)
    return [scores.judged(model, resized(test[:_TEST], size), test_labels[:_TEST])]


def _file(setting, kept):
    return kept / f"trunk-{runner.key(setting)}.weights.h5"
