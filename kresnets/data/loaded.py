"""What `load_data` found: three parts, and what is to be known of them."""

import dataclasses
from typing import Any

from kresnets.data.part import Part
from kresnets.decoding import Decoding


@dataclasses.dataclass(frozen=True)
class Data:
    """Hold what `load_data` found.

    Args:
        name: str, what was loaded.
        class_names: tuple of str, the names that the labels index.
        train: `Part` to learn from.
        validation: `Part` that chooses among epochs.
        test: `Part` for the final judgement, to be used once.
        bad: tuple of `(id, reason)`, images that were left out.
        rotated: int, how many images have an EXIF orientation other than upright; see `Decoding.exif_orientation`.
        contents: str, a hash of the bytes of all images, by which one that was changed under its name is noticed.
        decoding: a `kresnets.Decoding`, how files become pixels, in all three parts.
        decoded: tuple of str, sentences about images that are not decoded as most are; the summary has them.
        plain: tuple of ids, images that are of one colour throughout.
        files: dict of ids, of the files that were left out too, to `kresnets.data.manifest.Noted`.
    """

    name: str
    class_names: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    bad: tuple[tuple[str, str], ...] = ()
    rotated: int = 0
    contents: str = ""
    decoding: Decoding = Decoding()
    decoded: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    files: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def task(self) -> str:
        """What the labels are: `"classes"`, `"labels"` or `"numbers"`."""
        return self.train.task

    def notes(self) -> list[str]:
        """Return what is to be known of the images before anything is learned from them, a sentence each."""
        counts = self.train.counts()
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        uneven = f"{counts[most] / max(counts[least], 1):.1f} times as many training images as {least!r}"
        of_all = len(self.train) + len(self.validation) + len(self.test)
        turned = "turn upright," if self.decoding.exif_orientation else "would turn, which is ignored"
        lacking = [
            f"{name!r} in {where}"
            for where, part in (("validation", self.validation), ("test", self.test))
            for name, count in part.counts().items()
            if self.task == "labels" and not count and counts[name]
        ]
        told = {
            f"Labels without an image: {', '.join(lacking)}; what is said of them there counts for nothing.": lacking,
            f"Images left out as damaged: {len(self.bad)} ({_first(name for name, _ in self.bad)}).": self.bad,
            f"Images that their EXIF data {turned} here and in serving alike: {self.rotated}.": self.rotated,
            f"Images of one colour throughout: {len(self.plain)} of {of_all} ({_first(self.plain)}).": self.plain,
            f"{most!r} has {uneven}; see `class_weight` balanced.": (
                self.task == "classes" and counts[most] >= 2 * counts[least]
            ),
        }
        return [sentence for sentence, holds in told.items() if holds]

    def counted(self) -> list[tuple[Any, ...]]:
        """Return a row for each class or label: its images in each part; for each number its mean there."""
        parts = (self.train, self.validation, self.test)
        if self.task == "numbers":
            means = [part.labels.mean(0) for part in parts]
            return [(f"mean of {name}", *(f"{m[n]:.4g}" for m in means)) for n, name in enumerate(self.class_names)]
        counts = [part.counts() for part in parts]
        return [(name, *(count[name] for count in counts)) for name in self.class_names]

    def summary(self) -> str:
        """Return a table of the number of images per class and part, and what is said of their decoding, as text."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        rows = [("class" if self.task == "classes" else self.task[:-1], *parts), *self.counted()]
        rows.append(("all" if self.task != "numbers" else "images", *map(len, parts.values())))
        width = max(len(row[0]) for row in rows)
        lines = [f"{first:<{width}}" + "".join(f"{cell:>12}" for cell in rest) for first, *rest in rows]
        return "\n".join([*lines, *self.decoded])


def _first(names, most=3):
    names = [name if name.isprintable() else ascii(name) for name in names]
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)
