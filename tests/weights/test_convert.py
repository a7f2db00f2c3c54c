"""`kresnets weights convert`: PyTorch checkpoints, read by torch's loader of tensors alone."""

import sys

import numpy as np
import pytest
from commands import finish
from golden_rule import golden_tensor
from safetensors.numpy import load_file

from kresnets.weights.convert import convert

SHAPES = {
    "conv1.weight": (8, 3, 3, 3),
    "bn1.weight": (8,),
    "bn1.running_mean": (8,),
    "layer1.0.conv1.weight": (8, 8, 3, 3),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is no dependency: the command asks for it")


def state(torch, prefix=""):
    tensors = {f"{prefix}{name}": torch.from_numpy(golden_tensor(name, shape)) for name, shape in SHAPES.items()}
    return tensors | {f"{prefix}bn1.num_batches_tracked": torch.tensor(5)}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.model.backbone."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_tensors_arrive_by_their_names(torch, prefix, inside, tmp_path):
    found = state(torch, prefix)
    torch.save(found if inside is None else {inside: found, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "a.safetensors") == sorted(SHAPES)
    read = load_file(tmp_path / "a.safetensors")
    for name, shape in SHAPES.items():
        np.testing.assert_array_equal(read[name], golden_tensor(name, shape))


def test_a_head_beside_a_prefixed_trunk_keeps_its_name(torch, tmp_path):
    torch.save(state(torch, "backbone.") | {"fc.weight": torch.ones(2, 8, dtype=torch.bfloat16)}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "a.safetensors") == sorted([*SHAPES, "fc.weight"])
    assert load_file(tmp_path / "a.safetensors")["fc.weight"].dtype == np.float32


def test_what_would_run_is_not_read(torch, tmp_path):
    class Module:
        def __reduce__(self):
            return open, (str(tmp_path / "run"), "w")

    torch.save(Module(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no file of tensors alone"):
        convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    (tmp_path / "b.pth").write_bytes(b"no pickle either")
    with pytest.raises(ValueError, match="no file of tensors alone"):
        convert(tmp_path / "b.pth", tmp_path / "a.safetensors")
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds no weights by name"):
        convert(tmp_path / "c.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "run").exists() and not (tmp_path / "a.safetensors").exists()


def test_the_command_says_what_takes_them(torch, tmp_path):
    torch.save(state(torch), tmp_path / "a.pth")
    first = finish("weights", "convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert first.returncode == 0 and "4 tensors, bn1.running_mean to layer1.0.conv1.weight" in first.stdout
    again = finish("weights", "convert", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert again.returncode == 2 and "--overwrite" in again.stderr
    wrong = finish("weights", "convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--model", "ResNet18")
    assert wrong.returncode == 2 and "the file lacks" in wrong.stderr


def test_without_torch_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install 'torch>=2.6'"):
        convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="must be called NAME.safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "a.bin")
