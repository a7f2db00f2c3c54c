"""The ways to fine-tune that the default recipe is chosen among, and the peers that it is judged against, as data."""

import dataclasses
import math

from _claims import cells

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
}
LONG = {"start": {}, "600 steps": {"steps": 600}}  # in the larger cells beside the best of these
TEXTBOOK = {"head": "trained", "head_epochs": 3, "learning_rate": 1e-3, "stages": DOWNWARDS, "epochs_per_stage": 3}
FOR_IMAGES = {"head": "trained", "learning_rate": 1e-2, "stages": DOWNWARDS, "stage_steps": 45}
FRESH = {"head": "fresh", "ratio": 1.0, "batchnorm": "train", "keeps": "plain"}
PEERS = {
    "regression": {"rule": "regression", "images": "train"},
    "regression, all": {"rule": "regression", "images": "all"},
    "head alone": FOR_IMAGES | {"stages": [], "augment": "none", "keeps": "plain"},
    "textbook": TEXTBOOK | {"trunk_learning_rate": 1e-4, "keeps": "plain"},
    "for_images": FOR_IMAGES | {"trunk_learning_rate": 1e-3, "keeps": "plain"},
    "everything at once": FRESH | {"trunk_learning_rate": 1e-3},
    "Keras's guide": {"rule": "guide", "head_epochs": 20, "epochs": 10, "head_rate": 1e-3, "rate": 1e-5},
    "fastai": {"rule": "fastai", "head_epochs": 1, "epochs": 10, "rate": 2e-3},
    "BiT": {"rule": "bit", "steps": 500, "rate": 3e-3},
}
SCRATCH = {"from scratch": FRESH | {"trunk": "none", "trunk_learning_rate": 3e-3, "steps": 600}}
SCRATCH_IN = (cells.JUDGE[0], cells.JUDGE[1], cells.JUDGE[3])  # it is the dear one
# The weights that each peer's rule keeps, where it is not the last ones.
PEERS_KEEP = {"head alone": "best loss", "textbook": "best loss", "for_images": "best loss"}
CHOSEN, KEPT = "start", "last"  # what is judged: a way, and the weights that it keeps


def setting_of(way, fields, cell, seed, judged, network="ResNet50Thin", trunk="open_nsfw", dtype=DTYPE):
    """Return the setting of a way in a cell, with the epochs that its steps come to there.

    Args:
        way: its name.
        fields: its entry of `WAYS`, `PEERS` or `SCRATCH`.
        cell: a `cells.Cell`.
        seed: of the draw and the training.
        judged: whether a recipe is judged there, see `cells.draw`.
        network, trunk, dtype: see `cells.network`.
    """
    told = {"task": "tune", "judged": judged, **dataclasses.asdict(cell), "way": way}
    told = told | {"network": network, "trunk": trunk, "dtype": dtype, "seed": seed}
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
    if "stage_steps" in fields:
        told["epochs_per_stage"] = told["head_epochs"]
    elif told["stages"]:
        share = fields.get("steps", START["steps"]) / len(told["stages"])
        told.setdefault("epochs_per_stage", max(1, math.ceil(share / steps)))
    return told


def cell_of(row):
    """Return the `cells.Cell` of a setting or row."""
    return cells.Cell(row["target"], row["n"], row["size"])
