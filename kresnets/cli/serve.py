"""Serve an exported model, to try it and for small use."""

import dataclasses
import pathlib
from typing import Annotated, Any

from cyclopts import Group, Parameter

from kresnets.cli.options import Count, Flag, Positive, Whole

_VERSIONS = Group("Versions", sort_key=1)
_LIMITS = Group("Limits", sort_key=2)


@Parameter(name="*", group=_VERSIONS)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Which:
    """Which versions.

    Args:
        newest: How many, from the highest number down.
        versions: Just these numbers: to roll back.
        label: LABEL=VERSION; may be given again.
        poll: Seconds between looks into the folder.
    """

    newest: Count = 1
    versions: Annotated[tuple[Whole, ...], Parameter(consume_multiple=True, negative="")] = ()
    label: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    poll: Positive = 1.0


@Parameter(name="*", group=_LIMITS)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may take.

    Args:
        max_batch: Rows computed at once, at most.
        wait_ms: Milliseconds to wait for others to join a batch.
        no_batching: Compute each request by itself.
        max_mb: Megabytes of a request, at most.
        max_instances: Instances in a request, at most.
        max_queue: Rows that may wait, at most.
        timeout: Seconds to send a request, and to wait for its answer.
    """

    max_batch: Count = 32
    wait_ms: float = 2.0
    no_batching: Flag = False
    max_mb: Positive = 16.0
    max_instances: Count = 256
    max_queue: Count = 1024
    timeout: Positive = 30.0


def serve(
    path: pathlib.Path,
    /,
    which: Which = Which(),
    limits: Limits = Limits(),
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: Whole = 8501,
) -> None:
    """Serve an exported model, to try it and for small use: TF Serving's REST interface, and a page to drop images on.

    kresnets serve saved_models/pets

    answers on http://127.0.0.1:8501 as `tensorflow_model_server --rest_api_port=8501` would, and changes over to a new
    version as soon as it appears. For production take TF Serving itself.

    Args:
        path: The model's folder, parent of its versions.
        name: The model's name in the paths. Left out: the folder's.
        host: Address to listen on; 0.0.0.0 for all.
        port: 0 for any that is free.
    """
    from kresnets.serving.server import run

    pairs = [text.rpartition("=") for text in which.label]
    labels: dict[str, Any] = {  # what is no number is refused where it is known what is allowed
        label: int(number) if number.isdecimal() else number for label, _, number in pairs
    }
    how = dataclasses.asdict(limits)
    how["batching"] = not how.pop("no_batching")
    run(path, name, host, port, which.poll, which.newest, which.versions, labels, **how)
