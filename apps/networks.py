"""Print the README's table of networks from the rows: python apps/networks.py"""

import kresnets


def table():
    """Return the table as Markdown."""
    lines = ["| network | blocks a stage | parameters | pixels | weights | as in |", "|---|---|---|---|---|---|"]
    for name, spec in kresnets.SPECS.items():
        weights = "`imagenet`, a path" if name in ("ResNet50", "ResNet101", "ResNet152") else "a path"
        lines.append(
            f"| {name} | {', '.join(map(str, spec.depths))} | {spec.params / 1e6:.2f} M | {spec.input_size} | {weights} | {spec.reference} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
