"""What the network saw: some training images as they are, and as augmentation changed them."""

import numpy as np

from kresnets.report import figures

_IMAGES, _DRAWS = 6, 3


def sheet(part, recipe, size, crop, path):
    """Draw some images, each with three of its changed copies below, as a PNG; return whether there was anything to
    draw.

    Args:
        part: the training `kresnets.data.Part`.
        recipe: the resolved `kresnets.Recipe`.
        size: int, pixels a side.
        crop: float.
        path: where the PNG goes.
    """
    from kresnets.data import augmentation

    if recipe.augment == "none":
        return False
    rows = np.unique(np.linspace(0, len(part) - 1, _IMAGES).astype(int))
    images, augment = part.pixels(size, rows, crop), augmentation(recipe.augment, recipe.seed)
    lines = [images, *(np.asarray(augment(images, draw)) for draw in range(_DRAWS))]
    photo, gap, text = 110, 8, 30
    width, height = len(rows) * (photo + gap) + gap, len(lines) * (photo + gap) + text + gap
    made = figures.figure(width, height)
    made.text(
        gap / width, 1 - text / 2 / height, "Above: training images. Below: as they were changed, anew in each epoch",
        va="center", fontsize=figures.TEXT,
    )  # fmt: skip
    for line, pixels in enumerate(lines):
        for column, image in enumerate(pixels):
            x, y = gap + column * (photo + gap), height - text - (line + 1) * (photo + gap)
            figures.photograph(made, (x, y, photo, photo), image)
    figures.save(made, path)
    return True
