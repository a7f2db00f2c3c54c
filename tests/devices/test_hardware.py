"""Which dtype trains fastest, by what devices say of themselves. No GPU is at hand: their answers are given here in the
form in which TensorFlow and JAX document them."""

import sys
import types

import keras
import pytest

from kresnets.devices import hardware


@pytest.mark.parametrize(
    "details, policy",
    [
        ([{"compute_capability": (7, 0)}], "mixed_float16"),  # V100
        ([{"compute_capability": (7, 5)}], "mixed_float16"),  # T4
        ([{"compute_capability": (8, 0)}], "mixed_bfloat16"),  # A100
        ([{"compute_capability": (12, 0)}], "mixed_bfloat16"),
        ([{"compute_capability": (8, 9)}, {"compute_capability": (7, 5)}], "mixed_float16"),
        ([{}], "mixed_bfloat16"),  # not NVIDIA's
    ],
)
def test_tensorflow_gpus(monkeypatch, details, policy):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: details)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: details)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: device)
    assert hardware.fast_dtype() == policy


@pytest.mark.parametrize(
    "devices, policy",
    [
        ([{"platform": "cpu"}], "float32"),
        ([{"platform": "gpu", "compute_capability": "7.5"}], "mixed_float16"),
        ([{"platform": "gpu", "compute_capability": "9.0"}] * 2, "mixed_bfloat16"),
        ([{"platform": "gpu", "compute_capability": "gfx90a"}], "mixed_bfloat16"),
        ([{"platform": "tpu"}], "mixed_bfloat16"),
    ],
)
def test_jax_accelerators(monkeypatch, devices, policy):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    found = [types.SimpleNamespace(**device) for device in devices]
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(local_devices=lambda: found))
    assert hardware.fast_dtype() == policy


@pytest.mark.parametrize("flags, policy", [({"avx512_bf16"}, "mixed_bfloat16"), ({"avx2"}, "float32")])
def test_processors(monkeypatch, flags, policy):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    monkeypatch.setattr(hardware, "_processor_flags", lambda: flags)
    assert hardware.fast_dtype() == policy
