"""Export a finished run as a SavedModel for TF Serving, or for another runtime."""

import csv
import io
import pathlib
import shlex
from typing import Any, Literal

from kresnets.cli import formats
from kresnets.cli.options import Count, Flag
from kresnets.runs.folder import RunFolder


def export(
    run: pathlib.Path,
    path: pathlib.Path,
    /,
    *,
    format: Literal["saved-model", "onnx", "litert", "litert-int8", "openvino"] = "saved-model",
    top: Count = 5,
    dtype: Literal["float32", "bfloat16"] = "float32",
    verify: int | Literal["all"] | None = None,
    calibrate: Flag = False,
    tta: Literal["none", "flip", "crops"] = "none",
) -> None:
    """Export a finished run as a SavedModel for TF Serving, or for another runtime.

    kresnets export runs/pets saved_models/pets --verify 100

    writes saved_models/pets/1 (then 2, 3, ...), in one step that a polling server can meet at any moment.

    kresnets export runs/pets pets.onnx --format onnx

    writes a file for another runtime, and pets.labels.txt beside it.

    Args:
        run: The run's folder.
        path: The model's folder, parent of its versions; with another --format a file.
        format: What to write; litert-int8 is calibrated by the run's training images.
        top: Labels an image, at most.
        dtype: What the server computes in; bfloat16 is faster on processors that have it.
        verify: Ask both models about so many images of the run's test part, or all; the card keeps what differs.
        calibrate: Divide the logits by the run's temperature, so that scores are as sure as answers are right; the
            answers stay.
        tta: Test-time augmentation, of a SavedModel: the answer is the mean over the image and its mirror image (flip,
            twice the work), or 12 views (crops).
    """
    if isinstance(verify, int) and verify < 1:
        raise ValueError(f"--verify must be at least 1, or all. Received: {verify}")
    source = RunFolder(run)
    temperature = _temperature(source) if calibrate else None
    loaded = model, labels, preprocessing = source.load()
    if temperature is not None:
        from kresnets.export import with_temperature

        with_temperature(model, temperature)
    if format != "saved-model":
        if tta != "none":
            raise ValueError(f"--tta {tta} is for --format saved-model; leave it out with {format}.")
        return formats.export(source, loaded, path, format, dtype, verify)
    from kresnets.export import export_saved_model, read_card

    folder = export_saved_model(
        model,
        path,
        labels,
        preprocessing,
        top,
        dtype,
        card=_card(source) | {"temperature": temperature},
        verify_on=_images(source, verify) if verify else (),
        tta=tta,
    )
    served = folder.parent.resolve()
    mount = shlex.quote(_mount(served))
    name = shlex.quote(f"MODEL_NAME={served.name}")
    print(folder)
    if verified := read_card(folder)["verified"]:
        same = verified.get("same_first_label")
        print(
            f"verified: {verified['photographs']} images, scores within {verified['largest_difference']:.2g} of the "
            "Keras model's" + ("" if same is None else f", the same first label for {same:.2%}")
        )
    if not (card := read_card(folder))["reads"]:
        shape = (*[card["input_size"]] * 2, card["decoding"]["channels"])
        print(f"it takes tensors of {shape}, 0..255, already resized; files of so many channels no server decodes")
    print(f"ask it:   kresnets predict {shlex.quote(str(folder))} IMAGE...")
    print(f"serve it: docker run -p 8500:8500 -p 8501:8501 --mount {mount} -e {name} -t tensorflow/serving")


def _temperature(run):
    calibration = (run.metrics or {}).get("calibration") or {}
    if "temperature" not in calibration:
        raise ValueError(
            f"{run} has no temperature: one is fitted at the end of a run that has 50 validation images or more; leave "
            "--calibrate out."
        )
    print(
        f"temperature {calibration['temperature']:.3f}: expected calibration error {calibration['error']:.3f} before, "
        f"{calibration['error_with_temperature']:.3f} with it, on the test images"
    )
    return calibration["temperature"]


def _mount(served):
    """Write Docker's line of comma-separated values for a folder, whose name may hold a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={served}", f"target=/models/{served.name}"])
    return line.getvalue()


def _card(run: RunFolder) -> dict[str, Any]:
    """Say on the model card where a run's model comes from and what it was found to do."""
    config = run.config
    arguments = config.get("arguments") or {}
    per_label = (run.metrics or {}).get("per_label") or {}
    more = {"thresholds": {name: row["threshold"] for name, row in per_label.items()}} if per_label else {}
    return more | {
        "network": config.get("model"),
        "weights": arguments.get("weights"),
        "data": {
            "source": arguments.get("data"),
            "sha256": config.get("data"),
            "contents_sha256": config.get("contents"),
        },
        "metrics": run.metrics,
        "command": config["command"],
    }


def _images(run: RunFolder, count: int | Literal["all"]) -> list[Any]:
    """Return images of a run's test part, as they were given."""
    data = run.images()
    most = len(data.test) if count == "all" else min(count, len(data.test))
    images = (data.test.encoded(index) for index in range(most))
    return [image.decode(errors="surrogateescape") if isinstance(image, bytes) else image.read() for image in images]
