"""What the first bytes of an image file claim, read before anything is decoded: a few kB may unpack to gigabytes.

TensorFlow's own operations only, so that a served model guards itself.
"""

import tensorflow as tf

_PASSES = 32  # through the pixels of a JPEG: progressive ones are usually made of 10 scans, of CMYK 24
_TEXTS, _TEXT = 64, 8_000_000  # compressed ones in a PNG, and how many bytes its decoder unpacks of each
_GIF_STEPS = 4096  # of a walk through a GIF
_PER_BYTE = 256  # pixels of a JPEG, at most
_ENTRIES = 128  # of EXIF data, at most, among which the orientation is looked for
_JPEGS_EXIF = 1 << 16  # bytes of a JPEG in which they are looked for
_STEPS = 4096  # of a walk through the pieces of a JPEG or PNG that come before its pixels
_GIF_RUN = 4096  # blocks that one step takes, where all are as long as the first: so programs write all but the last
# How an image is decoded: a JPEG at 1, 1/2, 1/4 or 1/8 of its sides; a PNG or WebP with alpha; a PNG of 16 bits, with
# both.
WAYS = PLAIN, HALF, QUARTER, EIGHTH, CLEAR, DEEP, CLEAR_DEEP = tuple(range(7))
_BETWEEN, _EXTENSION, _IMAGE, _DONE, _BROKEN = range(5)  # where such a walk is


def starts_with(image_bytes, magic):
    """Whether a scalar string tensor starts with some bytes, as a scalar bool tensor."""
    return tf.equal(tf.strings.substr(image_bytes, 0, len(magic)), magic)


def is_gif(image_bytes):
    """Whether TensorFlow would decode a scalar string tensor as a GIF, as a scalar bool tensor."""
    return starts_with(image_bytes, b"GIF8")


def is_jpeg(image_bytes):
    """Whether a scalar string tensor starts as a JPEG does, as a scalar bool tensor."""
    return starts_with(image_bytes, b"\xff\xd8\xff")


def claimed_pixels(image_bytes, whole=None):
    """Read how many pixels a file unpacks to, before it is unpacked.

    What costs time instead counts as pixels too: the pixels of a JPEG once more for every 32 scans, which may be a few
    bytes each (200 kB that take a decoder 200 times through 50 million pixels), and 8 million for each compressed text
    of a PNG beyond 64.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of a JPEG, PNG, BMP or WebP file; for a GIF see
            `first_frame`.
        whole: int, that of `Decoding`, beyond which JPEGs are scaled down while they are decoded: those in one scan
            (`in_one_scan`) then claim what is left, others all their pixels. Defaults to None.

    Returns:
        Scalar int64 tensor, or -1 for bytes that are of none of these formats or lack what their format begins with.

    Raises:
        tf.errors.InvalidArgumentError: when run on a JPEG without a readable header.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data.headers import claimed_pixels
        >>> int(claimed_pixels(tf.io.encode_png(tf.zeros((2, 4, 1), "uint8"))))
        8
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

    def of_jpeg():
        scaled, left, pixels = reduction(image_bytes, whole)
        if whole is not None:
            read = (scaled > 0) & fills(image_bytes, pixels)
            in_rows = tf.cond(read, lambda: in_one_scan(image_bytes), lambda: tf.constant(False))
            pixels = tf.where(in_rows, left, pixels)
        return pixels * _rounds(image_bytes)

    return tf.cond(is_jpeg(image_bytes), of_jpeg, lambda: _by_fixed_places(image_bytes))


def reduction(image_bytes, whole=None):
    """Tell by its size alone how far a JPEG is scaled down while it is decoded.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of a JPEG file.
        whole: int, that of `Decoding`. Defaults to None, never scaled.

    Returns:
        Three scalar int64 tensors: how often its sides are halved, 0 to 3; the pixels that are left; all its pixels.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data.headers import reduction
        >>> jpeg = tf.io.encode_jpeg(tf.zeros((30, 41, 3), "uint8"))
        >>> [int(number) for number in reduction(jpeg, whole=400)]
        [1, 315, 1230]
    """
    sides = tf.cast(tf.io.extract_jpeg_shape(image_bytes)[:2], tf.int64)
    # As libjpeg rounds: up.
    parts = tf.constant([[1], [2], [4], [8]], tf.int64)
    left = tf.reduce_prod((sides + parts - 1) // parts, axis=1)
    halved = tf.constant(0, tf.int64) if whole is None else tf.math.count_nonzero(left[:-1] > whole)
    return halved, left[halved], left[0]


def fills(image_bytes, pixels):
    """Whether a JPEG can hold so many pixels: decoders go on to the last row of one that ends after its header.

    A block of 8 x 8 takes 2 bits at least, and colours have blocks of their own.
    """
    return tf.cast(tf.strings.length(image_bytes), tf.int64) * _PER_BYTE >= pixels


def _piece(image_bytes, place, count):
    """Return bytes of a string as an int64 tensor, zeros behind its end; without a copy of all of it."""
    size = tf.strings.length(image_bytes)
    piece = tf.strings.substr(image_bytes, tf.minimum(place, tf.cast(size, tf.int64)), count)
    return tf.cast(tf.io.decode_raw(piece, tf.uint8, fixed_length=count), tf.int64)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def in_one_scan(image_bytes):
    """Whether a JPEG is decoded row by row, as baseline ones are: all colours in its first scan, all bits of them.

    Of others, progressive ones above all, decoders hold every coefficient, whatever the scale.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of a JPEG file.

    Returns:
        Scalar bool tensor.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data.headers import in_one_scan
        >>> picture = tf.zeros((30, 41, 3), "uint8")
        >>> [bool(in_one_scan(tf.io.encode_jpeg(picture, progressive=way))) for way in (False, True)]
        [True, False]
    """
    size = tf.cast(tf.strings.length(image_bytes), tf.int64)

    def step(place, frame, scanned):
        piece = _piece(image_bytes, place, 10)
        marker = tf.where(piece[0] == 0xFF, piece[1], 0)
        is_frame = (marker >= 0xC0) & (marker <= 0xCF) & tf.reduce_all(marker != [0xC4, 0xC8, 0xCC])
        # Behind a fill byte comes the marker; a few have no length.
        bare = (marker == 1) | ((marker >= 0xD0) & (marker <= 0xD8))
        one, two = tf.constant(1, tf.int64), tf.constant(2, tf.int64)
        ahead = tf.where(marker == 0xFF, one, tf.where(bare, two, two + piece[2] * 256 + piece[3]))
        after = tf.where(marker == 0, size, place + ahead)
        return after, tf.where(is_frame, marker * 256 + piece[9], frame), tf.where(marker == 0xDA, piece[4], scanned)

    _, frame, scanned = tf.while_loop(
        lambda place, frame, scanned: (scanned == 0) & (place < size),
        step,
        (tf.constant(2, tf.int64), tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
        maximum_iterations=_STEPS,
        parallel_iterations=1,
    )
    # Baseline or extended (ITU-T T.81, table B.1), with Huffman codes.
    return (scanned > 0) & tf.reduce_any(frame - scanned == [0xC000, 0xC100])


@tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)], autograph=False)
def way(image_bytes, whole):
    """Tell how an image is to be decoded.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of an image file.
        whole: int, that of `Decoding`; -1 for none.

    Returns:
        Scalar int32 tensor, one of `WAYS`.
    """
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=32)

    def of_jpeg():
        return tf.cast(reduction(image_bytes, tf.where(whole < 0, tf.int64.max, whole))[0], tf.int32)

    def of_png():
        clear = tf.cast((head[25] & 4 > 0) | _has_clear_colour(image_bytes), tf.int32)
        return tf.where(head[24] == 16, DEEP + clear, CLEAR * clear)

    def of_others():
        kind = tf.strings.substr(image_bytes, 8, tf.minimum(8, tf.nn.relu(tf.strings.length(image_bytes) - 8)))
        clear = (kind == b"WEBPVP8X") & (head[20] & 16 > 0) | (kind == b"WEBPVP8L") & (head[24] & 16 > 0)
        return CLEAR * tf.cast(clear, tf.int32)

    png = starts_with(image_bytes, b"\x89PNG\r\n\x1a\n")
    return tf.cond(is_jpeg(image_bytes), of_jpeg, lambda: tf.cond(png, of_png, of_others))


def _has_clear_colour(image_bytes):
    """Whether a PNG says before its pixels which colours are transparent (tRNS)."""
    size = tf.cast(tf.strings.length(image_bytes), tf.int64)

    def step(place, _):
        length, kind = tf.split(_piece(image_bytes, place, 8), 2)
        length = tf.tensordot(length, tf.constant([2**24, 2**16, 2**8, 1], tf.int64), 1)
        found = tf.reduce_all(kind == list(b"tRNS"))
        return tf.where(tf.reduce_all(kind == list(b"IDAT")), size, place + length + 12), found

    def walk():
        start, none = tf.constant(33, tf.int64), tf.constant(False)
        going = {"maximum_iterations": _STEPS, "parallel_iterations": 1}
        return tf.while_loop(lambda place, found: (place < size) & ~found, step, (start, none), **going)[1]

    # Most are known by their first bytes, in one step, unless there are texts in which anything may stand.
    first = tf.strings.substr(image_bytes, 0, 4096)
    none = tf.strings.regex_full_match(first, r"\C*IDAT\C*") & ~tf.strings.regex_full_match(
        first, r"\C*(tRNS|EXt|TXt|iCCP|eXIf)\C*"
    )
    return tf.cond(none, lambda: tf.constant(False), walk)


# What comes before EXIF data in a JPEG, a PNG, a WebP, and the begin of such data, which are a TIFF file.
_EXIF = r"(Exif\x00\x00|eXIf|EXIF\C{4})(II\*\x00|MM\x00\*)\C*"


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def orientation(image_bytes):
    """Tell how an image is to be turned to be upright, by its EXIF data (CIPA DC-008, tag 0x0112).

    Looked for in the first 64 kB of a JPEG (segment APP1), and in all of a PNG (chunk eXIf) or WebP (chunk EXIF).

    Args:
        image_bytes: scalar string tensor (or bytes), the content of an image file.

    Returns:
        Scalar int64 tensor, 1 to 8; 1, upright, where nothing or nonsense is said.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from kresnets.data.headers import orientation
        >>> file, exif = io.BytesIO(), Image.Exif()
        >>> exif[0x0112] = 6
        >>> Image.new("L", (4, 2)).save(file, "JPEG", exif=exif)
        >>> int(orientation(file.getvalue()))
        6
    """
    whole = starts_with(image_bytes, b"\x89PNG\r\n\x1a\n") | starts_with(image_bytes, b"RIFF")
    searched = tf.where(whole, tf.strings.length(image_bytes), tf.where(is_jpeg(image_bytes), _JPEGS_EXIF, 0))
    text = tf.strings.substr(image_bytes, 0, searched)
    # In one operation, as a walk takes longer and more room: cut behind what comes before the data, it has their place.
    place = tf.strings.length(tf.strings.regex_replace(text, _EXIF, r"\1", replace_global=False))
    there = place < tf.strings.length(text)
    return tf.cond(there, lambda: _orientation(image_bytes, tf.cast(place, tf.int64)), lambda: tf.constant(1, tf.int64))


def _orientation(image_bytes, place):
    """Read the tag in EXIF data that begin at a place, as TIFF files do: all of them as numbers of 16 bits."""
    head = _piece(image_bytes, place, 8)
    # Bytes of a number of 16 bits, and such numbers of one of 32, the least first or last. (Not by a step of -1, of
    # which grappler gives up on the whole graph.)
    least = [[1, 256], [1, 1 << 16]]
    ways = (tf.constant(way, tf.int64) for way in (least, [pair[::-1] for pair in least]))
    octets, halves = tf.unstack(tf.where(head[0] == ord("I"), *ways))
    numbers = lambda values: tf.reduce_sum(tf.reshape(values, (-1, 2)) * octets, axis=1)
    place += tf.reduce_sum(numbers(head[4:]) * halves)
    found = numbers(_piece(image_bytes, place, 2 + 12 * _ENTRIES))
    count, entries = tf.split(found, [1, 6 * _ENTRIES])
    tag, kind, _, _, value, _ = tf.unstack(tf.reshape(entries, (_ENTRIES, 6)), axis=1)
    known = (tag == 0x0112) & (kind == 3) & (tf.range(_ENTRIES, dtype=tf.int64) < count)
    one = tf.constant(1, tf.int64)
    said = tf.reduce_max(tf.where(known, value, one))
    return tf.where((said >= 1) & (said <= 8), said, one)


def _rounds(image_bytes):
    return 1 + tf.nn.relu(_scans(image_bytes) - 1) // _PASSES


def _scans(image_bytes):
    """Count the headers of scans in a JPEG, those of embedded previews too."""
    # In compressed data 0xFF is followed by 0 or a restart marker, so 0xFF 0xDA starts a scan; but not behind the
    # picture, where a motion photograph has its video. Of a header decoders insist on 1 to 4 components, and on the
    # length in two bytes that follows from them, which chance gives to one in four million.
    data = tf.pad(tf.io.decode_raw(image_bytes, tf.uint8), [[0, 4]])
    places = tf.where((data[:-1] == 0xFF) & (data[1:] == 0xDA))[:, 0]
    high, low, components = (tf.gather(data, places + ahead) for ahead in (2, 3, 4))
    known = (components >= 1) & (components <= 4)
    return tf.math.count_nonzero(known & (high == 0) & (low == 6 + 2 * components))


def _texts(image_bytes):
    found = _occurrences(image_bytes, b"zTXt") + _occurrences(image_bytes, b"iTXt")
    return _TEXT * tf.nn.relu(found - _TEXTS)


def _occurrences(image_bytes, wanted):
    """Count where some bytes are within others."""
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    size = tf.maximum(tf.size(data) - len(wanted) + 1, 0)
    same = [data[place : size + place] == value for place, value in enumerate(wanted)]
    return tf.math.count_nonzero(tf.reduce_all(same, axis=0))


def _by_fixed_places(image_bytes):
    """Read PNG, BMP and WebP, which have their sides at fixed places."""
    head = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=32), tf.int64)

    def number(place, count, most_first=False):
        places = [place + (count - 1 - i if most_first else i) for i in range(count)]
        return sum(head[place] * 256**power for power, place in enumerate(places))

    def holds(place, wanted):
        return tf.reduce_all(head[place : place + len(wanted)] == tf.constant(list(wanted), tf.int64))

    # A PNG that hides its IHDR behind another chunk is none; a BMP that starts at the top has a negative height.
    height = number(22, 4)
    height = tf.where(height < 2**31, height, 2**32 - height)
    png = holds(0, b"\x89PNG\r\n\x1a\n") & holds(12, b"IHDR")
    texts = tf.cond(png, lambda: _texts(image_bytes), lambda: tf.constant(0, tf.int64))
    webp = holds(0, b"RIFF") & holds(8, b"WEBP")
    lossless = number(21, 4)  # two sides of 14 bits, less one
    formats = (
        (png, texts + number(16, 4, True) * number(20, 4, True)),
        (holds(0, b"BM"), number(18, 4) * height),
        (webp & holds(12, b"VP8 "), number(26, 2) % 2**14 * (number(28, 2) % 2**14)),
        (webp & holds(12, b"VP8L"), (lossless % 2**14 + 1) * (lossless // 2**14 % 2**14 + 1)),
        (webp & holds(12, b"VP8X"), (number(24, 3) + 1) * (number(27, 3) + 1)),
    )
    pixels = tf.constant(-1, tf.int64)
    for found, claimed in formats:
        pixels = tf.where(found, claimed, pixels)
    return pixels


def first_frame(image_bytes, background=b""):
    """Cut a GIF behind its first frame.

    The decoder unpacks every frame even where one is asked for, so that a small file takes any amount of memory.

    Args:
        image_bytes: scalar string tensor (or bytes), the content of a GIF file.
        background: three bytes, the colour that the transparent one becomes. Defaults to none: it is kept, and decoded
            to black.

    Returns:
        The content of a GIF file of one frame, scalar string tensor, empty where the file ends before its first frame
        does, and how many pixels that frame claims, scalar int64 tensor.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from kresnets.data.headers import first_frame
        >>> file = io.BytesIO()
        >>> frames = [Image.new("L", (4, 2), grey) for grey in (9, 99)]
        >>> frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
        >>> cut, pixels = first_frame(file.getvalue())
        >>> len(cut.numpy()) < len(file.getvalue()), int(pixels)
        (True, 8)
    """
    return _first_frame(image_bytes, background)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)] * 2, autograph=False)
def _first_frame(image_bytes, background):
    size = tf.strings.length(image_bytes)
    # Zeros behind the end, which end every walk there.
    data = tf.cast(tf.pad(tf.io.decode_raw(image_bytes, tf.uint8), [[0, 16]]), tf.int32)

    def at(place):
        return data[tf.minimum(place, size)]

    def table(flags):  # bytes of a table of colours
        return tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def step(place, offset, pixels, control, frame):
        value = at(place)
        between = offset == _BETWEEN
        opens, image = between & (value == 0x21), between & (value == 0x2C)
        closes = ~between & (value == 0)
        sides = [at(place + 5 + i) + 256 * at(place + 6 + i) for i in (0, 2)]
        # Blocks of one length, one behind the other: 255 bytes by most programs, 254 or fewer by others.
        alike = data[place : tf.minimum(place + (value + 1) * _GIF_RUN, size) : value + 1] == value
        run = tf.argmin(tf.concat([tf.cast(alike, tf.int32), [0]], 0), output_type=tf.int32)
        ahead = tf.where(closes, 1, (value + 1) * run)
        ahead = tf.where(image, 11 + table(at(place + 9)), tf.where(opens, 2, ahead))
        after = tf.where(closes, tf.where(offset == _IMAGE, _DONE, _BETWEEN), offset)
        after = tf.where(image, _IMAGE, tf.where(opens, _EXTENSION, after))
        after = tf.where(between & ~opens & ~image, _BROKEN, after)
        claimed = tf.cast(sides[0], tf.int64) * tf.cast(sides[1], tf.int64)
        control = tf.where(opens & (at(place + 1) == 0xF9), place, control)
        frame = tf.where(image, place, frame)
        return tf.minimum(place + ahead, size + 1), after, tf.where(image, claimed, pixels), control, frame

    end, offset, pixels, control, frame = tf.while_loop(
        lambda place, offset, *_: (offset < _DONE) & (place < size),
        step,
        (13 + table(at(10)), tf.constant(_BETWEEN), tf.constant(0, tf.int64), tf.constant(0), tf.constant(0)),
        maximum_iterations=_GIF_STEPS,
        parallel_iterations=1,
    )
    whole = tf.strings.join([tf.strings.substr(image_bytes, 0, end), b";"])

    def with_background():
        """The clear colour of the frame's table becomes the background, and is clear no more."""
        colours = tf.where(at(frame + 9) >= 0x80, frame + 10, 13)
        return _put(_put(whole, control + 3, b"\0"), colours + 3 * at(control + 6), background)

    flags = tf.where(at(frame + 9) >= 0x80, at(frame + 9), at(10))
    clear = (offset == _DONE) & (control > 0) & (at(control + 3) & 1 > 0) & (3 * at(control + 6) < table(flags))
    whole = tf.cond(clear & (tf.strings.length(background) == 3), with_background, lambda: whole)
    return tf.where((offset == _DONE) & (end <= size), whole, b""), pixels


def _put(text, place, piece):
    """Return a string with a piece of it replaced by another one of the same length."""
    behind = place + tf.strings.length(piece)
    return tf.strings.join([tf.strings.substr(text, 0, place), piece, tf.strings.substr(text, behind, 2**31 - 1)])
