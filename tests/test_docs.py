"""The examples in docstrings and README run, and the README's table is that of the rows."""

import doctest
import importlib
import pkgutil
import re

import keras
import numpy as np
import pytest
from PIL import Image
from places import ROOT

import kresnets

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = sorted(module.name for module in pkgutil.walk_packages(kresnets.__path__, "kresnets."))
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", [name for name in MODULES if name != "kresnets.applications"])
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=FLAGS)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50D", "CifarPlainNet20"])
def test_the_examples_of_the_builders_run(name):
    assert f">>> kresnets.{name}(" in getattr(kresnets, name).__doc__
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in doctest.DocTestFinder().find(getattr(kresnets, name), name, globs={"kresnets": kresnets}):
        runner.run(example)
    assert runner.summarize().attempted == 2 and runner.summarize().failed == 0


def test_every_public_name_has_a_docstring_with_an_example():
    names = [name for name in vars(kresnets) if not name.startswith("_") and callable(getattr(kresnets, name))]
    assert "fine_tune" in names and len(names) > 40
    assert [name for name in names if ">>> " not in (getattr(kresnets, name).__doc__ or "")] == []


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    # On 16 small pictures and the smallest network, so that it takes seconds.
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "my_folder" / name).mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_folder" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        if "fit(" not in block and "fine_tune(" not in block:
            exec(compile(block, "README.md", "exec"), {})
            continue
        small = (
            block.replace("ResNet50", "CifarResNet20")
            .replace("224", "32")
            .replace('weights="imagenet"', "weights=None")
        )
        short = "fine_tune(model, train, validation, kresnets.Recipe(epochs_per_stage=1))"
        small = small.replace("fine_tune(model, train, validation)", short)
        small = small.replace("epochs=9", "epochs=1")
        exec(compile(small.replace("stage3", "stage2").replace("stage4", "stage3"), "README.md", "exec"), {})
    guide = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    small = (
        block.replace("ResNet50", "CifarResNet20").replace("224", "32").replace('weights="imagenet"', "weights=None")
    )
    exec(compile(small.replace("=12", "=5").replace("=24", "=2").replace("stage4", "stage3"), "search.md", "exec"), {})
    assert len(list((tmp_path / "runs/mine/search").glob("trial_*/record.json"))) == 2
    keras.backend.clear_session()
    assert (tmp_path / "saved_models" / "pets" / "1" / "saved_model.pb").exists()
