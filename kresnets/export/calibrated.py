"""A classifier whose scores can be trusted more: its logits divided by a temperature (arXiv 1706.04599 section 4.2)."""

import keras

from kresnets._util.checks import is_number

_ENDS = tuple(keras.activations.get(name) for name in ("softmax", "sigmoid", "linear"))


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Divide a classifier's logits by a temperature, within the weights of its head: the answers stay, how sure
    they are changes, and every format carries it.

    Args:
        model: a Keras model that ends in a Dense layer; it is changed.
        temperature: number above 0; above 1 where the model is too sure of itself.

    Returns:
        The model.

    Raises:
        ValueError: for another end, or a temperature that is no number above 0.

    Example:
        >>> import keras
        >>> from kresnets.export import with_temperature
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="ones")])
        >>> with_temperature(model, 4.0).layers[-1].kernel.numpy().tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    if not is_number(temperature) or temperature <= 0:
        raise ValueError(f"`temperature` must be a number above 0. Received: temperature={temperature!r}")
    last = model.layers[-1]
    if type(last) is not keras.layers.Dense or last.activation not in _ENDS:
        raise ValueError(
            f"{model.name!r} ends in {type(last).__name__}, not in a Dense layer of logits: divide them by "
            f"{temperature:g} yourself."
        )
    last.set_weights([weight / temperature for weight in last.get_weights()])
    return model
