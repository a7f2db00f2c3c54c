"""The claims of apps/claims.py, a file each that ends in `CLAIM`, and what they share.

`claim` says what a claim is, `judge` when one is confirmed, `page` what is told of it, `plots` draws, and `runner`
measures what is missing and writes the folder. `scratch` teaches small networks, `transfer` carries trunks over,
`images` has what both learn from, `probes` looks at networks that learn nothing; `cells` and `peers` belong to
`default_recipe`.
"""

import importlib

# In the order of docs/claims.md: what residual networks are for, what their parts are for, how they are carried over.
NAMES = (
    "degradation depth-pays-less identity norms shortcuts variants bottleneck preactivation relu-before-addition "
    "inception freeze-or-finetune head-first early-layers recipe default-recipe distilled"
).split()


def find(name):
    """Return the `Claim` of this name; its file is read only now, so that names cost nothing."""
    return importlib.import_module(f"claims.{name.replace('-', '_')}").CLAIM
