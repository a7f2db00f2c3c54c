"""List networks and their published weights."""

import fnmatch

import kresnets
from kresnets.cli.compare import count
from kresnets.cli.options import Flag
from kresnets.weights import sources


def networks(*names: str, markdown: Flag = False) -> None:
    """List networks, or the published weights of those named.

    kresnets networks 'ResNet50*'

    Args:
        names: Names, or patterns such as 'ResNet50*'. Left out: all networks in short, without weights.
        markdown: Print the table of the docs, with multiply-adds (20 seconds).
    """
    if markdown:
        print(table())
        return
    if not names:
        for name, spec in kresnets.SPECS.items():
            print(f"{name:20} {(spec.params or 0) / 1e6:7.2f} M parameters  {spec.input_size} pixels  {_best(name)}")
        return
    for pattern in names:
        found = fnmatch.filter(kresnets.SPECS, pattern)
        if not found:
            raise ValueError(f"There is no network {pattern!r}: use one of {', '.join(kresnets.SPECS)}.")
        for name in found:
            print(kresnets.weights.list(name) if sources.of(name) else f"{name}: no published weights")


def _best(name: str) -> str:
    best = sources.best(name)
    return "" if best is None else best.tag + (f", top-1 {best.top1:.1f} %" if best.top1 else "")


def table() -> str:
    """Return the networks as a table in Markdown."""
    lines = [
        '| network | blocks a stage | parameters | multiply-adds | pixels | `weights="imagenet"` | top-1, % | as in |',
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(row, kresnets.SPECS)])


def row(name: str) -> str:
    """Return the row of that table of one network."""
    spec, best = kresnets.SPECS[name], sources.best(name)
    cells = (
        name,
        ", ".join(map(str, spec.depths)),
        f"{(spec.params or 0) / 1e6:.2f} M",
        f"{count(name).multiply_adds / 1e9:.2f} G",
        str(spec.input_size),
        f"`{best.tag}`" if best else "",
        f"{best.top1:.1f} at {best.top1_size}" if best and best.top1 else "",
        spec.reference,
    )
    return f"| {' | '.join(cells)} |"
