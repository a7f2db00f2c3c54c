"""How the bytes of image files become pixels 0..255, as data, models, runs and exports carry it."""

import dataclasses
from typing import Any

from kresnets._util.checks import asks_what_is_meant, is_whole

LARGE = 50_000_000  # pixels of an image: about 150 MB


@asks_what_is_meant
@dataclasses.dataclass(frozen=True)
class Decoding:
    """How the bytes of image files become pixels 0..255: one record for the data, the model, the run and the export.

    Args:
        bits: how many bits the values of 16-bit PNG fill, 8 to 16, the same for all of them: cameras write 10, 12 or 14
            into 16. A value becomes `value >> (bits - 8)`. None where no such image was seen: then 16.
        background: colour that transparent pixels are put on (PNG, GIF, WebP): a name that Pillow knows, `"#rrggbb"`,
            or `(R, G, B)` 0..255; None: alpha is dropped, and such a pixel shows the colour stored under it.
        whole: JPEGs of more pixels than this are decoded at 1/2, 1/4 or 1/8 of their sides, the largest at which they
            have at most so many; None: at their own size.

    Raises:
        ValueError: for a value out of its range.

    Example:
        >>> import kresnets
        >>> kresnets.Decoding(bits=12, background="black")
        Decoding(bits=12, background=(0, 0, 0), whole=50000000)
    """

    bits: int | None = None
    background: Any = "white"
    whole: int | None = LARGE

    def __post_init__(self):
        if self.bits is not None and not (is_whole(self.bits, 8) and self.bits <= 16):
            raise ValueError(f"`bits` must be a whole number from 8 to 16, or None. Received: bits={self.bits!r}")
        if self.whole is not None and not is_whole(self.whole, 1):
            raise ValueError(f"`whole` must be a number of pixels from 1, or None. Received: whole={self.whole!r}")
        if self.background is not None:
            object.__setattr__(self, "background", _colour(self.background))

    @classmethod
    def before(cls):
        """Return how images were decoded before models carried it: the high byte, alpha dropped, none scaled."""
        return cls(bits=None, background=None, whole=None)


def _colour(given):
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(given) if isinstance(given, str) else tuple(given)
    except (ValueError, TypeError):
        colour = ()
    if len(colour) != 3 or not all(is_whole(level, 0) and level <= 255 for level in colour):
        raise ValueError(
            "`background` must be a colour such as 'white', '#ff8000' or (255, 128, 0), or None. Received: "
            f"background={given!r}"
        )
    return tuple(map(int, colour))
