"""What the machine computes well."""

import os
import pathlib
import platform

import keras

BFLOAT16_SINCE = 8.0  # compute capability of NVIDIA's GPUs with bfloat16: A100 and later


def fast_dtype() -> str:
    """Return the dtype policy that trains fastest here without losing accuracy.

    `"mixed_bfloat16"` where the processor, or each accelerator that is used, has it; `"mixed_float16"` on NVIDIA GPUs
    that have only that (compute capability below 8.0), where Keras then scales the loss by itself; else `"float32"`.
    Weights, norm statistics and the head stay float32 under any.

    Returns:
        `"mixed_bfloat16"`, `"mixed_float16"` or `"float32"`.

    Example:
        >>> from kresnets.devices.hardware import fast_dtype
        >>> fast_dtype() in ("mixed_bfloat16", "mixed_float16", "float32")
        True
    """
    capabilities = {"jax": _jax_capabilities, "tensorflow": _tensorflow_capabilities}.get(keras.config.backend())
    if found := capabilities() if capabilities else []:
        old = [one for one in found if one is not None and one < BFLOAT16_SINCE]
        return "mixed_float16" if old else "mixed_bfloat16"
    if keras.config.backend() == "jax":
        return "float32"  # XLA's processor code has no bfloat16 convolution worth its name
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & _processor_flags() else "float32"


def _jax_capabilities():
    """Return the compute capability of each accelerator, None for one that has no such number (a TPU)."""
    import jax

    devices = [device for device in jax.local_devices() if device.platform != "cpu"]
    return [_as_number(getattr(device, "compute_capability", None)) for device in devices]


def _tensorflow_capabilities():
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return []
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [_as_number(one.get("compute_capability")) for one in details]


def _as_number(capability):
    """Return (8, 6) of TensorFlow, or "8.6" of JAX, as 8.6; None for what is no such number (AMD's names)."""
    try:
        major, minor = capability if isinstance(capability, tuple) else str(capability).split(".")
        return int(major) + int(minor) / 10
    except ValueError:
        return None


def _processor_flags():
    return set(_cpuinfo("flags", "Features").split())


def _cpuinfo(*names):
    """Return what Linux says of the processor under the first of these names, elsewhere nothing."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def describe() -> str:
    """Return one line about the machine: processor, cores, backend."""
    model = _cpuinfo("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {keras.config.backend()} backend, Keras {keras.__version__}"
