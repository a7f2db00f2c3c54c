"""Search over recipes with Keras Tuner: its oracles made sound, on one machine or on many."""

from kresnets.tuning.oracle import sound as sound
