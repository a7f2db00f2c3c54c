"""The rooms of the house: which may lean on which, and what no file does."""

import ast
import re

import pytest
from places import ROOT

# Each room may use those above it in this list, and none below.
ROOMS = (
    ("_util", "version"),
    ("specs", "keras_hooks"),
    (
        "augmentations",
        "decoding",
    ),
    ("preprocess", "groups", "task"),
    ("networks",),
    ("weights",),
    ("build", "freezing"),
    ("applications", "analysis", "devices"),
    ("data", "callbacks"),
    ("runs",),
    ("report",),
    ("transfer",),
    ("export", "tuning", "serving"),
    ("cli",),
    ("__init__", "__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted((ROOT / "kresnets").rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
KERAS_HOOKS = "kresnets.keras_hooks"  # Keras Tuner's: tests/tuning/test_keras_tuner_hooks.py


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree):
    """Yield `(module of kresnets, name)` for each import, those within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kresnets":
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "kresnets":
                    yield alias.name, ""


@pytest.mark.parametrize("module", MODULES)
def test_a_file_leans_on_what_is_above_it(module):
    tree = ast.parse(MODULES[module].read_text())
    for used, name in imports(tree):
        whole = f"{used}.{name}"
        other = room(whole if used == "kresnets" and whole in {m.removesuffix(".__init__") for m in MODULES} else used)
        if other == "__init__":  # the public names of the whole package: for who stands on top of it
            assert room(module) in ("cli", "__main__", "tuning", "transfer"), f"{module} imports from kresnets itself"
            continue
        same = other == room(module)
        assert same or FLOOR[other] < FLOOR[room(module)], f"{module} uses {used}, which is not above it"
        private = name.startswith("_") and not name.startswith("__") and name != "_util"
        assert not private, f"{module} uses {used}.{name}, which is private there"


@pytest.mark.parametrize("module", MODULES)
def test_private_names_of_keras_are_behind_one_door(module):
    if module.startswith(KERAS_HOOKS):
        return
    text = MODULES[module].read_text()
    names = "keras_history|flatten_layers|inbound_nodes|compile_config|initial_epoch|trainable_variables"
    found = re.findall(rf"keras\.src|\._(?:{names})\b|seed_generator_state", text)
    assert not found, f"{module}: {found}"


def test_no_line_is_longer_than_120_characters():
    paths = [path for folder in ("kresnets", "apps", "tests") for path in (ROOT / folder).rglob("*.py")]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > 120
    ]
    assert not long, f"{len(long)} lines: {long[:5]}"
