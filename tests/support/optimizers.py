"""A maker of each of Keras's optimizers, by the rate."""

import keras

O = keras.optimizers  # noqa: E741
OPTIMIZERS = {
    "sgd": lambda rate: O.SGD(rate, momentum=0.9),
    "nesterov with decay": lambda rate: O.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda rate: O.Adam(rate),
    "amsgrad": lambda rate: O.Adam(rate, amsgrad=True),
    "adamw": lambda rate: O.AdamW(rate, weight_decay=0.1),
    "rmsprop": lambda rate: O.RMSprop(rate, centered=True, momentum=0.5),
    "lion": lambda rate: O.Lion(rate, weight_decay=0.1),
    "nadam": lambda rate: O.Nadam(rate),
    "adagrad": lambda rate: O.Adagrad(rate),
    "adadelta": lambda rate: O.Adadelta(rate),
    "adamax": lambda rate: O.Adamax(rate),
    "ftrl": lambda rate: O.Ftrl(rate),
    "lamb": lambda rate: O.Lamb(rate),
    "adafactor": lambda rate: O.Adafactor(rate),
    "muon": lambda rate: O.Muon(rate),
    "schedule free": lambda rate: O.ScheduleFreeAdamW(rate),
    "averages": lambda rate: O.Adam(rate, use_ema=True, ema_overwrite_frequency=3),
    "accumulation": lambda rate: O.AdamW(rate, gradient_accumulation_steps=2, weight_decay=0.1),
    "loss scale": lambda rate: O.LossScaleOptimizer(O.SGD(rate, momentum=0.9, weight_decay=0.1)),
    "clipped": lambda rate: O.SGD(rate, global_clipnorm=0.1),
}
