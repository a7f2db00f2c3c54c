"""The one door into Keras's insides: every private name of Keras that is used, and every change of a live object.

Written for Keras 3.15 (setup.cfg bounds it); tests/test_keras_hooks.py has a test for each, which fails when Keras
changes.

- `graph`: which call of which layer made a tensor, and the layers that a layer wraps. No public door leads there.
- `optimizer`: another list of variables, and another rate for each, inside one running `fit`, with the state kept. A
  Keras optimizer is built once, on a fixed list, and knows one rate.
- `model`: functions in the place of `make_train_function`, `load_weights`, `train_step` and `test_step`, on one object
  and for a while: when a fit starts, before weights are loaded, on cached features, in shares of several devices.
"""
