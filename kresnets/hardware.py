"""What the machine computes well."""

import pathlib

import keras


def fast_dtype():
    """Return the dtype policy that trains fastest here without losing accuracy: `"mixed_bfloat16"` where the processor
    has it.

    Looks at the processor, or at the accelerator that JAX runs on. Weights, norm statistics and the head stay float32
    under either.

    Returns:
        `"mixed_bfloat16"` or `"float32"`.

    Example:
        >>> from kresnets.hardware import fast_dtype
        >>> fast_dtype() in ("mixed_bfloat16", "float32")
        True
    """
    if keras.config.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return "mixed_bfloat16"
        return "float32"  # XLA's processor code has no bfloat16 convolution worth its name
    if keras.config.backend() == "tensorflow" and _tensorflow_gpu():
        return "mixed_bfloat16"
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & _processor_flags() else "float32"


def _tensorflow_gpu():
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def _processor_flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return set()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return set(line.partition(":")[2].split())


def describe():
    """Return one line about the machine: processor, cores, backend."""
    import os
    import platform

    model = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {keras.config.backend()} backend, Keras {keras.__version__}"
