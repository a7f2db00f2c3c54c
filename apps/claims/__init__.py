"""The claims of apps/claims.py, a file each that ends in `CLAIM`, and what they share.

`claim` says what a claim is, `results` reads what was measured, `verdicts` when one is confirmed, `plots` draws, and
`runner` measures what is missing and writes the folder. `pictures`, `training` and `rates` are for small networks from
scratch, `targets` and `transfer` for trunks that are carried over.
"""

import importlib

# In the order of docs/claims.md: what residual networks are for, what their parts are for, how they are carried over.
NAMES = {
    name: name.replace("-", "_")
    for name in (
        "degradation identity shortcuts variants bottleneck preactivation inception freeze-or-finetune head-first "
        "early-layers small-weights recipe default-recipe"
    ).split()
}


def find(name):
    """Return the `Claim` of this name; its file is read only now, so that names cost nothing."""
    return importlib.import_module(f"claims.{NAMES[name]}").CLAIM
