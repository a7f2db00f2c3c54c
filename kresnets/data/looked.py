"""The images of a listing, each looked at once, and what stands in the way of learning from them."""

import dataclasses
import functools
import hashlib
import warnings
from typing import Any

from kresnets.data import index
from kresnets.data.check import check_images
from kresnets.data.content import stamp_of
from kresnets.data.listing import Listing
from kresnets.data.manifest import Noted
from kresnets.data.split import PARTS

_SHOWN = 20  # bad images that are named; all of them, but for a folder that is none of images


def look(listing, decoding, progress, use="auto"):
    """Return the `Looked` of a `Listing`: every image is decoded as a `Decoding` says, in parallel, but for those that
    the `Index` knows (`use`)."""
    parts = [(part, item) for part, items in listing.parts.items() for item in items]
    contents = [item.content for _, item in parts]
    verdicts, stamps = _verdicts(contents, decoding, progress, use if len(parts) >= index.LEAST else "off")
    good = [(part, item, verdict) for (part, item), verdict in zip(parts, verdicts) if not verdict.reason]
    return Looked(
        listing,
        [item for _, item, _ in good],
        [verdict for *_, verdict in good],
        {part: [row for row, (own, *_) in enumerate(good) if own == part] for part in listing.parts},
        tuple((item.id, verdict.reason) for (_, item), verdict in zip(parts, verdicts) if verdict.reason),
        {
            item.id: Noted.of(listing.said(item), verdict.digest, stamp)
            for (_, item), verdict, stamp in zip(parts, verdicts, stamps)
        },
    )


def _verdicts(contents, decoding, progress, use):
    with index.Index(decoding, use) as known:
        stamps = [stamp_of(content) for content in contents]  # before they are read: what changes meanwhile is seen
        found = known.of_files(stamps)
        new = [place for place, verdict in enumerate(found) if verdict is None]

        def keep(begin, verdicts):
            places = new[begin : begin + len(verdicts)]
            for place, verdict in zip(places, verdicts):
                found[place] = verdict
            known.note([contents[place] for place in places], [stamps[place] for place in places], verdicts)

        check_images([contents[place] for place in new], progress, decoding, known.of_bytes, keep)
    return found, stamps


@dataclasses.dataclass(frozen=True)
class Looked:
    """Hold what was found of the images of a listing.

    Args:
        listing: the `Listing`.
        items: the images that are good, of which all else speaks by their rows.
        verdicts: what `check_images` says of each of them.
        given: dict part of the source -> rows.
        bad: pairs `(id, reason)` of the others.
        noted: dict of ids, of the others too, to `Noted`.
    """

    listing: Listing
    items: list[Any]
    verdicts: list[Any]
    given: dict[str, list[int]]
    bad: tuple[tuple[str, str], ...]
    noted: dict[str, Noted]

    @functools.cached_property
    def digests(self):
        """What is equal for images of the same bytes."""
        return [verdict.digest for verdict in self.verdicts]

    @functools.cached_property
    def groups(self):
        """The group of each image; None where there are none."""
        groups = [item.group for item in self.items]
        return groups if any(group is not None for group in groups) else None

    @property
    def weighed(self):
        """Whether images have weights."""
        return bool(self.items) and self.items[0].weight is not None

    def contents(self):
        """Return a hash of the names and bytes of all images."""
        found = hashlib.sha256()
        for item, digest in sorted(zip(self.items, self.digests), key=lambda pair: pair[0].id):
            found.update(repr((item.id, digest.hex())).encode())
        return found.hexdigest()

    def obstacles(self, bad_images):
        """Return a sentence for each thing that nothing can be learned with."""
        bad = [self._bad()] if self.bad and bad_images == "error" else []
        return bad + self.without() + self._rare() + self._lost_in_float32() + self._floats()

    def _bad(self):
        shown = "; ".join(f"{image_id} ({reason})" for image_id, reason in self.bad[:_SHOWN])
        left = len(self.bad) - _SHOWN
        more = f"; and {left} more, which `Data.bad` lists where they are skipped" if left > 0 else ""
        return (
            f"{len(self.bad)} of {len(self.noted)} images cannot be used: {shown}{more}. Repair or delete them, or "
            'leave them out with bad_images="skip".'
        )

    def without(self):
        """Return a sentence for each class, or label, without an image in a part."""
        if self.listing.task == "numbers":
            return []

        def has(row):
            label = self.items[row].label
            return [label] if self.listing.task == "classes" else [n for n, value in enumerate(label) if value]

        names, one = self.listing.class_names, "Class" if self.listing.task == "classes" else "Label"
        return [
            f"{one} {names[label]!r} has no usable image{'' if part == 'all' else f' in the {part} part'}: add some, "
            f"or leave the {one.lower()} out."
            for part, rows in self.given.items()
            for label in sorted(set(range(len(names))) - {label for row in rows for label in has(row)})
        ]

    def _rare(self):
        """Return a sentence for each label that fewer images have than there are parts."""
        if self.listing.task != "labels" or set(self.given) != {"all"}:
            return []
        counts = [sum(label) for label in zip(*(item.label for item in self.items))]
        return [
            f"Label {name!r} is on {count:g} image{'s' * (count != 1)}, but each of {', '.join(PARTS)} needs at least "
            "one: add some, or leave the label out."
            for name, count in zip(self.listing.class_names, counts)
            if 0 < count < len(PARTS)
        ]

    def _lost_in_float32(self):
        """Return a sentence for each number that varies by less than float32, in which is trained, can tell."""
        told = []
        columns = zip(*(item.label for item in self.items)) if self.listing.task == "numbers" else ()
        for name, column in zip(self.listing.class_names, columns):
            spread, largest = max(column) - min(column), max(map(abs, column))
            if 0 < spread < 1e-4 * largest:
                told.append(
                    f"{name!r} goes from {min(column):.12g} to {max(column):.12g}, differences that float32 cannot "
                    "tell: subtract what all have in common."
                )
        return told

    def _floats(self):
        """Return a sentence where arrays of floats all look as if they were scaled to 0..1."""
        floats = [verdict.floating for verdict in self.verdicts if verdict.floating is not None]
        if not floats or max(floats) > 1:
            return []
        return [f"{len(floats)} images are floats of at most {max(floats):.3g}, and 0..255 is what is read: times 255?"]

    def weightless(self, rows):
        """Return a sentence where the weights of training images leave nothing to learn of a class, or of all."""
        if not self.weighed:
            return []
        learned = {self.items[row].label for row in rows if self.items[row].weight}
        if not learned:
            return ["All training images have the weight 0: give some more, or leave the weights out."]
        if self.listing.task != "classes":
            return []
        silent = [name for label, name in enumerate(self.listing.class_names) if label not in learned]
        return [
            f"All training images of {name!r} have the weight 0: give some more, or leave it out." for name in silent
        ]

    def warn_of_duplicates(self):
        """Warn of images that two classes, or two parts of the source, share."""
        labels = {}
        for item, digest in zip(self.items, self.digests):
            labels.setdefault(digest, {}).setdefault(item.label, item.id)
        twice = [found for found in labels.values() if len(found) > 1]
        if twice:
            names = " and ".join(list(twice[0].values())[:2])
            warnings.warn(f"{len(twice)} images occur under two classes, for example {names}.", stacklevel=3)
        trained = {self.digests[row]: self.items[row].id for row in self.given.get("train", ())}
        others = [row for part in self.given if part != "train" for row in self.given[part]]
        shared = [(self.digests[row], self.items[row].id) for row in others if self.digests[row] in trained]
        if shared:
            digest, name = shared[0]
            warnings.warn(
                f"{len(shared)} images of the given validation and test parts are in the training part too, for "
                f"example {trained[digest]} and {name}.",
                stacklevel=3,
            )
