"""AlexNet, to see the others in scale."""

import keras


def alexnet() -> keras.Model:
    """Build AlexNet as its paper has it (NIPS 2012, figure 2): two groups, 227 x 227 pixels, 60,965,224 parameters.

    For counting only: there are no weights for it, and its local response normalization, which has no parameters and
    which Keras lacks, is left out. (torchvision's `alexnet` is the later one-tower net of 61,100,840 parameters.)

    Returns:
        A Functional `keras.Model`.

    Example:
        >>> from kresnets.analysis import alexnet, summarize
        >>> summarize(alexnet()).parameters
        60965224
    """
    first = keras.config.image_data_format() == "channels_first"
    # The paper's figure says 224, and only 227 gives its 55 x 55 map without padding.
    x = image = keras.Input((3, 227, 227) if first else (227, 227, 3), name="stem_input")
    # filters, kernel, stride, groups, whether a 3x3 max pool with stride 2 follows
    convolutions = (
        (96, 11, 4, 1, True),
        (256, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (384, 3, 1, 2, False),
        (256, 3, 1, 2, True),
    )
    for index, (filters, kernel, stride, groups, pool) in enumerate(convolutions, start=1):
        group, padding = ("stem", "valid") if stride > 1 else ("stage1", "same")
        x = keras.layers.Conv2D(
            filters, kernel, stride, padding, groups=groups, activation="relu", name=f"{group}_conv{index}"
        )(x)
        if pool:
            x = keras.layers.MaxPooling2D(3, 2, name=f"{group}_pool{index}")(x)
    x = keras.layers.Flatten(name="head_flatten")(x)
    for index in (1, 2):
        x = keras.layers.Dense(4096, activation="relu", name=f"head_dense{index}")(x)
        x = keras.layers.Dropout(0.5, name=f"head_dropout{index}")(x)
    x = keras.layers.Dense(1000, activation="softmax", name="head_dense3")(x)
    return keras.Model(image, x, name="alexnet")
