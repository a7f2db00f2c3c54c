"""How the bytes of image files become squares of pixels 0..255, as data, models, runs and exports carry it."""

import dataclasses
from typing import Any, Literal

from kresnets._util.checks import asks_what_is_meant, is_whole

LARGE = 50_000_000  # pixels of an image: about 150 MB
RESIZE = ("crop", "pad", "squash")
# Fields that older versions did not have -> what they did.
LATER: dict[str, Any] = {"exif_orientation": False, "resize": "crop", "padding": None, "channels": 3}
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8)


@asks_what_is_meant
@dataclasses.dataclass(frozen=True)
class Decoding:
    """How the bytes of image files become squares of pixels 0..255: one record for the data, the model, the run and the
    export.

    Args:
        bits: how many bits the values of 16-bit PNG fill, 8 to 16, the same for all of them: cameras write 10, 12 or 14
            into 16. A value becomes `value >> (bits - 8)`. None where no such image was seen: then 16.
        background: colour that transparent pixels are put on (PNG, GIF, WebP): a name that Pillow knows, `"#rrggbb"`,
            or `(R, G, B)` 0..255; None: alpha is dropped, and such a pixel shows the colour stored under it.
        whole: JPEGs of more pixels than this are decoded at 1/2, 1/4 or 1/8 of their sides, the largest at which they
            have at most so many; None: at their own size.
        exif_orientation: whether pictures are turned upright as their EXIF data say (tag 0x0112; JPEG, PNG, WebP).
        resize: how a picture becomes a square. `"crop"`: its short side is resized, the centre cut out; `"pad"`: its
            long side is resized, the rest filled; `"squash"`: both sides are resized, whatever its shape. The last two
            show all of the picture, and leave a crop that weights want undone.
        padding: colour that `resize="pad"` fills with, as of `background`. None: black; with other than 3 channels 0.
        channels: how many numbers a pixel has. 3: red, green and blue, whole numbers of 8 bits. 1: grey, of colours
            their luma (ITU-R BT.601); 4: red, green, blue and alpha, or bands; 2, 5 to 8: bands, as TIFF and `.npy`
            have them. But for 3, 16-bit images keep their fractions: a value becomes `value / 2**(bits - 8)`.

    Raises:
        ValueError: for a value out of its range.

    Example:
        >>> import kresnets
        >>> kresnets.Decoding(bits=12, background="black").background
        (0, 0, 0)
    """

    bits: int | None = None
    background: Any = "white"
    whole: int | None = LARGE
    exif_orientation: bool = True
    resize: Literal["crop", "pad", "squash"] = "crop"
    padding: Any = None
    channels: int = 3

    def __post_init__(self):
        if self.bits is not None and not (is_whole(self.bits, 8) and self.bits <= 16):
            raise ValueError(f"`bits` must be a whole number from 8 to 16, or None. Received: bits={self.bits!r}")
        if self.whole is not None and not is_whole(self.whole, 1):
            raise ValueError(f"`whole` must be a number of pixels from 1, or None. Received: whole={self.whole!r}")
        for name in ("background", "padding"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _colour(name, getattr(self, name)))
        if self.resize not in RESIZE:
            raise ValueError(f"`resize` must be {', '.join(map(repr, RESIZE))}. Received: resize={self.resize!r}")
        if self.padding is not None and self.resize != "pad":
            raise ValueError(
                f"`padding` is the colour of resize='pad', and resize is {self.resize!r}: leave one of them out."
            )
        if not is_whole(self.channels, 1) or self.channels not in CHANNELS:
            raise ValueError(f"`channels` must be a whole number from 1 to 8. Received: channels={self.channels!r}")
        if self.padding is not None and self.channels != 3:
            raise ValueError(
                f"`padding` is a colour, and images of channels={self.channels} are filled with 0: leave it out."
            )
        if not isinstance(self.exif_orientation, bool):
            raise ValueError(
                f"`exif_orientation` must be True or False. Received: exif_orientation={self.exif_orientation!r}"
            )

    def __str__(self):
        # By this name runs and kept images are found again, those of older versions too.
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        shown = {name: value for name, value in shown.items() if name not in LATER or value != LATER[name]}
        return f"Decoding({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def from_bytes(self) -> bool:
        """Whether TensorFlow decodes files of so many channels: of others come TIFF and `.npy` alone."""
        return self.channels in (1, 3, 4)

    @classmethod
    def before(cls):
        """Return how images were decoded before models carried it: the high byte, alpha dropped, none scaled, none
        turned."""
        return cls(bits=None, background=None, whole=None, exif_orientation=False)

    @classmethod
    def of_data(cls, fields: dict[str, Any]) -> "Decoding":
        """Return what was written by `dataclasses.asdict`, perhaps by an older version."""
        return cls(**LATER | fields)


def _colour(name, given):
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(given) if isinstance(given, str) else tuple(given)
    except (ValueError, TypeError):
        colour = ()
    if len(colour) != 3 or not all(is_whole(level, 0) and level <= 255 for level in colour):
        raise ValueError(
            f"`{name}` must be a colour such as 'white', '#ff8000' or (255, 128, 0), or None. Received: "
            f"{name}={given!r}"
        )
    return tuple(map(int, colour))
