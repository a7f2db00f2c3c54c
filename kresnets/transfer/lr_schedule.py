"""The learning rate over the steps of a run: one warm-up and one cosine a stage."""

import math

import keras


@keras.saving.register_keras_serializable(package="kresnets")
class StagedCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Run one cosine with warm-up after the other, each as `keras.optimizers.schedules.CosineDecay`.

    A schedule, not a callback, so that the rate is right at each step, on every backend, and after a resume: it is a
    function of the optimizer's iterations, which survive both.

    Args:
        starts: first step of each stage, the first one 0.
        peaks: highest learning rate of each stage.
        steps: steps in all.
        warmup: share of a stage's steps in which the rate rises from 0.

    Example:
        >>> from kresnets.transfer.lr_schedule import StagedCosine
        >>> schedule = StagedCosine((0, 10), (1.0, 0.1), 20, warmup=0.2)
        >>> [round(float(schedule(step)), 3) for step in (0, 2, 10, 12)]
        [0.0, 1.0, 0.0, 0.1]
    """

    def __init__(self, starts, peaks, steps, warmup=0.1):
        super().__init__()
        self.starts, self.peaks, self.steps, self.warmup = tuple(starts), tuple(peaks), steps, warmup
        self._stages = []
        for start, end, peak in zip(self.starts, (*self.starts[1:], steps), self.peaks, strict=True):
            rising = round((end - start) * warmup)
            self._stages.append((float(start), peak, rising, max(end - start - rising, 1)))

    def __call__(self, step):
        # The arithmetic of CosineDecay without its conditionals: an optimizer asks once for each variable, and to trace
        # them there took a third of the time of a small training.
        step = keras.ops.cast(step, "float32")
        start, peak, rising, falling = (self._of_stage(step, column) for column in zip(*self._stages))
        since = step - start
        share = keras.ops.clip((since - rising) / falling, 0.0, 1.0)
        fallen = 0.5 * (1.0 + keras.ops.cos(math.pi * share))
        risen = since / keras.ops.maximum(rising, 1.0)
        return peak * keras.ops.where(since < rising, risen, fallen)

    def _of_stage(self, step, values):
        """Return the value of the stage that a step is in."""
        found = keras.ops.cast(values[0], "float32")
        for (start, *_), value in zip(self._stages[1:], values[1:]):
            found = keras.ops.where(step >= start, keras.ops.cast(value, "float32"), found)
        return found

    def get_config(self):
        return {"starts": list(self.starts), "peaks": list(self.peaks), "steps": self.steps, "warmup": self.warmup}
