"""What tests of the documentation share: its pages, their links, and their Python made small."""

import re
import urllib.parse

import numpy as np
from PIL import Image
from places import ROOT

DOCS, SITE = ROOT / "docs", "https://kresnets.readthedocs.io/"
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def links(text):
    """Return the targets of a page's links and pictures; what stands in code is none."""
    return re.findall(r"\]\(<?([^)\s>]+)>?\)", _CODE.sub("", text)) + re.findall(r"(?:href|src)=\"([^\"]+)", text)


def is_relative(link):
    return not urllib.parse.urlsplit(link).scheme


def python_of(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def small(block):
    """Return Python that trains or builds for training, on the smallest network, for one epoch a stage."""
    if not any(word in block for word in ("fit(", "fine_tune(", "load_data(")):
        return block
    for long, short in {
        "ResNet50": "CifarResNet20",
        "224": "32",
        'weights="imagenet"': "weights=None",
        "tune(model, train, validation)": "tune(model, train, validation, kresnets.Recipe(epochs_per_stage=1))",
        'Recipe(augment="none")': 'Recipe(augment="none", head_epochs=1, epochs_per_stage=1)',
        "epochs=9": "epochs=1",
        "max_trials=24": "max_trials=2",
        "stage3": "stage2",
        "stage4": "stage3",
    }.items():
        block = block.replace(long, short)
    return block


def make_folder(path):
    """Write 16 small images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (path / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path / name / f"{index}.png")
