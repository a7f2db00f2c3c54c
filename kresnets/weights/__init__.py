"""Pretrained weights: where they come from, how files name their tensors, and filling a model strictly."""

import contextlib
import dataclasses
import logging
import os
import pathlib

from kresnets.preprocess import Preprocessing
from kresnets.specs import SPECS
from kresnets.weights import assign, fetch, layouts, onnx_graph, readers, sources, table

_log = logging.getLogger("kresnets")
_SUFFIXES = (".safetensors", ".h5")
_FILES = (
    ".safetensors in the layout of timm and torchvision, .h5 or .weights.h5 of keras.applications or kresnets; nothing "
    "is ever unpickled"
)


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """Where the weights of a model come from.

    Args:
        path: a file that is there; None where it is still to be fetched.
        published: the row of a published file.
    """

    path: pathlib.Path | None = None
    published: sources.Published | None = None


# The name is the public one; the builtin of that name is not used in this module.
def list(name=None):
    """List the published weights: of one network, or all there are.

    Args:
        name: of a builder, such as `"ResNet50D"`. Defaults to all that have any.

    Returns:
        A list that prints as a table, of rows with the attributes network, tag (for `weights=`), host, repository,
        file, trunk_file, md5, trunk_md5, revision, licence, preprocessing, input_size, test_size, top1 (percent) at
        top1_size, test_top1 and top1_from.

    Raises:
        ValueError: for a name that no builder has.

    Example:
        >>> import kresnets
        >>> [row.tag for row in kresnets.weights.list("ResNet18D")]
        ['timm/resnet18d.ra2_in1k', 'timm/resnet18d.ra4_e3600_r224_in1k']
    """
    if name is not None and name not in (*SPECS,):
        raise ValueError(f"`name` must be None or one of {', '.join(SPECS)}. Received: {name!r}")
    rows = sources.PUBLISHED if name is None else sources.of(name)
    best = (sources.best(network) for network in {row.network for row in rows})
    return table.Table(rows, best=[row for row in best if row is not None])


def resolve(spec, weights):
    """Check a builder's `weights` as far as that goes without the model.

    Returns:
        None where there is nothing to load, else a `WeightsSource` for `load`.

    Raises:
        ValueError: for what is neither None, `"imagenet"`, a tag of the network nor a path, for a file that can't be
            read, and for one whose layout the row can't take.
    """
    if weights is None:
        return None
    if isinstance(weights, str) and (published := _published(spec, weights)) is not None:
        return WeightsSource(published=published)
    path = _file(spec, weights)
    with readers.opened(path) as file:
        _layout(spec, file)
    return WeightsSource(path=path)


def fetched(source, spec, include_top, classes):
    """Fetch the file of a published source, for a model with or without its head; give any other back as it is.

    Raises:
        ValueError: for a tag that is for another number of classes.
        RuntimeError: for a published file that can't be fetched.
    """
    if source is None or source.path is not None:
        return source
    wanted = source.published.classes
    if wanted is not None and (not include_top or classes != wanted):
        others = ", ".join(repr(row.tag) for row in sources.of(spec.name) if row.classes is None)
        raise ValueError(
            f"{spec.name}: weights={source.published.tag!r} are for the head that they were published with: pass "
            f"classes={wanted} and include_top=True, or take the trunk alone by {others}. Received: classes={classes}, "
            f"include_top={include_top}"
        )
    path = fetch.fetch(source.published, trunk_only=not include_top or classes != spec.classes)
    return dataclasses.replace(source, path=path)


def load(model, spec, source, include_top, classes):
    """Fill a model from what `resolve` returned for its row, or raise and leave it as it was.

    Where the file has a head of another number of classes, the model's keeps its random start.

    Returns:
        The `kresnets.Preprocessing` that the weights want.

    Raises:
        ValueError: for a file that does not fit the model tensor by tensor; both sides are listed.
        RuntimeError: for a published file that can't be fetched.
    """
    source = fetched(source, spec, include_top, classes)
    published = source.published
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(readers.opened(source.path))
        layout = _layout(spec, file)
        preprocessing = published.preprocessing if published else _preprocessing(spec, file, layout)
        if published and published.variances:
            variances = stack.enter_context(readers.opened(fetch.variances(published)))
            file = onnx_graph.with_variances(file, variances, spec.epsilon)
        assign.fill(
            model, spec, file, layout, include_top, classes, fresh_head=bool(published and published.fresh_head)
        )
    return preprocessing


def name_of(source):
    """Return what to call the place that weights came from: a tag, what a file says itself, or the file's name."""
    if source.published:
        return source.published.tag
    with readers.opened(source.path) as file:
        return file.origin or source.path.name


def _published(spec, weights):
    """Find the row that a text means; None where it is no tag, as for the path of a file."""
    if weights != "imagenet":
        return sources.find(spec.name, weights)
    if (published := sources.best(spec.name)) is None:
        example = "" if layouts.TORCH.refusal(spec) else ", such as timm's model.safetensors"
        tags = "".join(f"weights={row.tag!r}, " for row in sources.of(spec.name))
        raise ValueError(
            f"{spec.name}: no ImageNet weights are known that anyone may use (`kresnets networks` shows all there "
            f"are): pass {tags}weights=None, or as `weights` the path of a file that you have{example}."
        )
    return published


def _file(spec, weights):
    # The functions of os.path raise nothing, for a home that is nobody's and a name that is too long neither.
    path = pathlib.Path(os.path.expanduser(weights) if isinstance(weights, (str, os.PathLike)) else "")
    if path.suffix not in _SUFFIXES:
        raise _not_allowed(spec, weights)
    if not os.path.isfile(path):
        found = "is a directory, and not" if os.path.isdir(path) else "is something else than"
        what = found if os.path.exists(path) else "is not there; give the path of"
        raise ValueError(f"{spec.name}: {path} {what} a file of weights.")
    return path


def _not_allowed(spec, weights):
    tags = ", ".join(repr(row.tag) for row in sources.of(spec.name))
    tags = f'"imagenet", a tag ({tags})' if tags else '"imagenet" (for a network that has any)'
    others = [row.network for row in sources.PUBLISHED if isinstance(weights, str) and row.tag == weights]
    others = f", which is a tag of {', '.join(others)}" if others else ""
    return ValueError(
        f"{spec.name}: `weights` must be None (a random start), {tags}, or the path of a file: {_FILES}. "
        f"Received: {weights!r}{others}"
    )


def _layout(spec, file):
    layout = layouts.of(file)
    if refusal := layout.refusal(spec):
        raise ValueError(f"{spec.name} can't take {file.path}, a file in the layout of {layout.label}: {refusal}.")
    # Two rows may have the same tensors and compute something else with them. Keras saves the model's name, by default
    # the row's.
    saved = {name.lower(): name for name in SPECS}.get(file.model_name, spec.name)
    if layout is layouts.KRESNETS and spec.name in SPECS and saved != spec.name:
        raise ValueError(f"{file.path} was saved from a {saved}, and this is a {spec.name}: build {saved} for it.")
    return layout


def _preprocessing(spec, file, layout):
    if file.preprocessing is None:
        if layout is layouts.KRESNETS:
            _log.info(
                "%s: %s does not say how its images were preprocessed; taken for the torch mode.", spec.name, file.path
            )
        assumed = layout.family(spec).preprocessing
        if layout is layouts.TORCH:
            _log.info(
                "%s: %s does not say how its images were preprocessed; taken for %s (timm's ra4 files want means and "
                "deviations of 0.5).",
                spec.name, file.path, assumed,
            )  # fmt: skip
        return assumed
    try:
        return Preprocessing.of_data(file.preprocessing)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file.path} says how images are preprocessed, but not in a way that is known: {error}"
        ) from error
