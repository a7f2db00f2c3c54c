"""Print the README's table of networks from the rows: python apps/networks.py (about 20 seconds)"""

import compare

import kresnets
from kresnets.weights import sources


def table():
    """Return the table as Markdown."""
    lines = [
        '| network | blocks a stage | parameters | multiply-adds | pixels | `weights="imagenet"` | top-1, % | as in |',
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, spec in kresnets.SPECS.items():
        best = sources.best(name)
        cells = (
            name,
            ", ".join(map(str, spec.depths)),
            f"{spec.params / 1e6:.2f} M",
            f"{compare.count(name).multiply_adds / 1e9:.2f} G",
            str(spec.input_size),
            f"`{best.tag}`" if best else "",
            f"{best.top1:.1f} at {best.top1_size}" if best and best.top1 else "",
            spec.reference,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
