"""The learning rate over the steps of a run: one warm-up and one cosine a stage."""

import keras


@keras.saving.register_keras_serializable(package="kresnets")
class StagedCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Run one `keras.optimizers.schedules.CosineDecay` after the other.

    A schedule, not a callback, so that the rate is right at each step, on every backend, and after a resume: it is a
    function of the optimizer's iterations, which survive both.

    Args:
        starts: first step of each stage, the first one 0.
        peaks: highest learning rate of each stage.
        steps: steps in all.
        warmup: share of a stage's steps in which the rate rises from 0.

    Example:
        >>> from kresnets.transfer.schedule import StagedCosine
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
            falling = max(end - start - rising, 1)
            options = dict(warmup_target=peak, warmup_steps=rising) if rising else {}
            cosine = keras.optimizers.schedules.CosineDecay(0.0 if rising else peak, falling, **options)
            self._stages.append((start, cosine))

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rate = keras.ops.zeros((), "float32")
        for start, cosine in self._stages:
            rate = keras.ops.where(step >= start, cosine(keras.ops.maximum(step - start, 0.0)), rate)
        return rate

    def get_config(self):
        return {"starts": list(self.starts), "peaks": list(self.peaks), "steps": self.steps, "warmup": self.warmup}
