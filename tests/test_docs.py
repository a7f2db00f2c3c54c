"""The examples in docstrings run; every public name has one."""

import doctest
import importlib
import pkgutil

import pytest

import kresnets

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
