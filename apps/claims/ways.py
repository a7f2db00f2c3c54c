"""The ways to fine-tune that the default recipe is chosen among, and the peers that it is judged against, as data."""

import dataclasses
import json
import math

from claims import cells
from kresnets.transfer import plan
from kresnets.transfer.recipe import Recipe

BATCH = 32
DTYPE = "mixed_bfloat16"
ALL_AT_ONCE, DOWNWARDS = ["stem"], ["stage4", "stage3", "stage2"]
# Where the grid begins: the head solved, then everything, gently. All is written out, so that a later change of a
# default of the library does not change what was measured.
START = {
    "rule": "recipe",
    "head": "solved",  # on the cached features; or "trained"
    "head_steps": 45,  # of a trained one
    "learning_rate": 1e-2,
    "stages": ALL_AT_ONCE,
    "steps": 300,  # of the trunk in all
    "trunk_learning_rate": 3e-4,
    "ratio": 0.5,
    "batchnorm": "frozen",
    "norm_momentum": 0.9,
    "augment": "light",
    "optimizer": "adamw",
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup": 0.1,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "pull": 0.0,  # towards the pretrained weights, decoupled (in spirit of arXiv 1802.01483)
    "keeps": "all",
}
# One change at a time; when 100 steps had done as well as 300 where there are 100 images, the changes to them.
SHORT = {"steps": 100}
WAYS = {
    "start": {},
    "head trained": {"head": "trained"},
    "rate 1e-4": {"trunk_learning_rate": 1e-4},
    "rate 1e-3": {"trunk_learning_rate": 1e-3},
    "ratio 1": {"ratio": 1.0},
    "100 steps": SHORT,
    "50 steps": {"steps": 50},
    "100 steps, head trained": SHORT | {"head": "trained"},
    "100 steps, rate 1e-3": SHORT | {"trunk_learning_rate": 1e-3},
    "100 steps, ratio 1": SHORT | {"ratio": 1.0},
    "100 steps, norms train": SHORT | {"batchnorm": "train"},
    "100 steps, stage by stage": SHORT | {"stages": DOWNWARDS},
    "100 steps, not augmented": SHORT | {"augment": "none"},
    "100 steps, strongly augmented": SHORT | {"augment": "strong"},
    "100 steps, from stage3 on": SHORT | {"stages": ["stage3"]},
    "100 steps, pulled back": SHORT | {"pull": 10.0},
    "100 steps, labels smoothed": SHORT | {"label_smoothing": 0.1},
    "100 steps, solved on 4 views": SHORT | {"head_views": 4},
}
# In the larger cells, where the best way of the small ones may want more steps, or more of the trunk; the last once.
LONG = {
    "start": {},
    "300 steps, from stage3 on": {"stages": ["stage3"]},
    "600 steps, from stage3 on": {"stages": ["stage3"], "steps": 600},
}
TEXTBOOK = {"head": "trained", "head_epochs": 3, "learning_rate": 1e-3, "stages": DOWNWARDS, "epochs_per_stage": 3}
FOR_IMAGES = {"head": "trained", "learning_rate": 1e-2, "stages": DOWNWARDS, "stage_steps": 45}
FRESH = {"head": "fresh", "ratio": 1.0, "batchnorm": "train", "keeps": "plain"}
PEERS = {
    "regression": {"rule": "regression", "images": "train"},
    "regression, all": {"rule": "regression", "images": "all"},
    "head alone": FOR_IMAGES | {"stages": [], "augment": "none", "keeps": "plain"},
    "textbook": TEXTBOOK | {"trunk_learning_rate": 1e-4, "keeps": "plain"},
    "for_images": FOR_IMAGES | {"trunk_learning_rate": 1e-3, "keeps": "plain"},
    "everything at once": FRESH | {"trunk_learning_rate": 1e-3, "as_long": True},
    "Keras's guide": {"rule": "guide", "head_epochs": 20, "epochs": 10, "head_rate": 1e-3, "rate": 1e-5},
    "fastai": {"rule": "fastai", "head_epochs": 1, "epochs": 10, "rate": 2e-3},
    "BiT": {"rule": "bit", "steps": 500, "rate": 3e-3},
}
SCRATCH = {"from scratch": FRESH | {"trunk": "none", "trunk_learning_rate": 3e-3, "steps": 600}}
SCRATCH_IN = (cells.JUDGE[0], cells.JUDGE[1], cells.JUDGE[3])  # it is a dear one
# Seeds of the dear ones; but where a network from scratch is the demo's peer, it has all.
FEWER = {"everything at once": 2, "BiT": 2}
FEWER |= dict.fromkeys(("Keras's guide", "fastai", "textbook", "for_images", "from scratch"), 1)
# The weights that each peer's rule keeps, where it is not the last ones.
PEERS_KEEP = {"head alone": "best loss", "textbook": "best loss", "for_images": "best loss"}
CHOSEN = "the default"  # what is judged: what `fine_tune` does by itself


def setting_of(way, fields, cell, seed, judged, network="ResNet50Thin", trunk="open_nsfw", dtype=DTYPE):
    """Return the setting of a way in a cell, with the epochs that its steps come to there.

    `fields` is the way's entry of `WAYS`, `PEERS` or `SCRATCH`, None for the default; see `cells.draw` and
    `cells.network` for the rest.
    """
    told = {"task": "tune", "judged": judged, **cell._asdict(), "way": way, "network": network, "trunk": trunk}
    told |= {"dtype": dtype, "seed": seed}
    if fields is None:
        return told | {"rule": "default", "recipe": plain(default(cell))}
    if fields.get("rule") == "regression":
        return told | fields
    steps = math.ceil(cells.learning(cell.n) / BATCH)
    if "rule" in fields:
        told |= {"augment": "light", "norm_momentum": 0.9} | fields
        return told | ({"epochs": math.ceil(fields["steps"] / steps)} if "steps" in fields else {})
    told |= {name: value for name, value in (START | fields).items() if not name.endswith("steps")}
    head = fields.get("stage_steps", START["head_steps"])
    told.setdefault("head_epochs", max(3, math.ceil(head / steps)))
    if told["head"] != "trained":
        told["head_epochs"] = 0
    if told.pop("as_long", False):
        told["epochs_per_stage"] = default(cell).epochs_per_stage
    if "stage_steps" in fields:
        told["epochs_per_stage"] = told["head_epochs"]
    elif told["stages"]:
        share = fields.get("steps", START["steps"]) / len(told["stages"])
        told.setdefault("epochs_per_stage", max(1, math.ceil(share / steps)))
    return told


def plain(recipe):
    """Return the fields of a `kresnets.Recipe` as JSON reads them back."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def default(cell):
    """Return the `kresnets.Recipe` to which the default is resolved for a pretrained network of kresnets in a cell."""
    images, groups = cells.learning(cell.n), ("stem", "stage1", "stage2", "stage3", "stage4", "head")
    known = {"images": images, "steps": math.ceil(images / BATCH), "validation": cell.n - images, "classes": 2}
    return plan.resolve(Recipe(), plan.Facts(groups=groups, **known, pretrained=True, why="")).recipe


def cell_of(row):
    """Return the `cells.Cell` of a setting or row."""
    return cells.Cell(row["target"], row["n"], row["size"])
