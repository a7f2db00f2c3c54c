"""What `pip install kresnets` brings: the wheel, installed where there is no checkout, does the whole path."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest
from PIL import Image
from places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what git would hand out: no build folder of before is in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "kresnets_command.py"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "kresnets", source / "kresnets", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(params=["beside", pytest.param("fresh", marks=pytest.mark.everything)])
def kresnets(request, wheel, tmp_path):
    """The command in an environment of its own that has the wheel, as a function of its arguments. Its dependencies
    are this environment's, or ("fresh") installed as a user's pip does."""
    place = tmp_path / "environment"
    venv.create(place)
    (site,) = place.glob("lib/python*/site-packages")
    if request.param == "beside":
        (site / "beside.pth").write_text(sysconfig.get_path("purelib"))  # but not what .pth files there add
    pip = [sys.executable, "-m", "pip", "--python", place / "bin/python"]
    subprocess.run(
        [*pip, "install", "-q", *["--no-deps"] * (request.param == "beside"), wheel], check=True, capture_output=True
    )

    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*argv):
        line = [place / "bin/kresnets", *map(str, argv)]
        done = subprocess.run(line, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [place / "bin/python", "-c", "import kresnets_command; print(kresnets_command.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True).stdout.strip()
    assert site in pathlib.Path(found).parents
    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, dark and bright."""
    rng = np.random.default_rng(0)
    for name, least in (("dark", 0), ("bright", 150)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(least, least + 100, (32, 32, 3), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_the_wheel_does_the_whole_path_outside_the_checkout(kresnets, pictures, tmp_path):
    given = "--model CifarResNet8 --weights none --size 32 --batch-size 8 --epochs 2 --dtype float32".split()
    kresnets("finetune", "--data", pictures, "--out", "run", *given)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["count"] == 8
    assert "<img" in (tmp_path / "run/report.html").read_text()
    kresnets("export", "run", "served")
    assert next((tmp_path / "served").glob("*/saved_model.pb")).exists()
    out = kresnets("predict", "served", "pictures/dark/0.png")
    assert "dark" in out and "bright" in out
    assert "finetune" in kresnets("--help") and "ResNet50D" in kresnets("networks")
