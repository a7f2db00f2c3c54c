"""The claims of apps/claims.py: a file each, which ends in `CLAIM`, and what they share.

`claim` says what a claim is, `verdicts` when one is confirmed, `runner` measures what is missing and writes the folder,
`pictures` are images to learn from, `training` the way in which small networks learn them.
"""

import importlib

# In the order of docs/claims.md: what residual networks are for, what their parts are for, how they are carried over.
NAMES = {
    "degradation": "degradation",
    "identity": "identity",
    "shortcuts": "shortcuts",
    "variants": "variants",
    "bottleneck": "bottleneck",
    "preactivation": "preactivation",
    "inception": "inception",
    "freeze-or-finetune": "freeze_or_finetune",
    "head-first": "head_first",
    "early-layers": "early_layers",
    "small-weights": "small_weights",
    "recipe": "recipe",
    "default-recipe": "default_recipe",
}


def find(name):
    """Return the `Claim` of this name; its file is read only now, so that a list of names costs nothing."""
    return importlib.import_module(f"_claims.{NAMES[name]}").CLAIM
