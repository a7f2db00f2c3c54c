"""The time that is left, held against what a training then took, by a clock that is wound by hand."""

import re
import types

import numpy as np
import pytest

import kresnets
from kresnets.cli import progress

STEPS, TRACING = 10, 4.0
GROUPS = ("stem", "stage1", "stage2", "stage3", "head")
# Multiply-adds of CifarResNet20 at 32 px, in millions, by hand: 1024 places x 27 x 16 of the stem; in each stage six
# convolutions of 9 weights a channel pair (with the first of stages 2 and 3 at half the channels); 64 x 2 of the head.
COSTS = dict(zip(GROUPS, (0.442, 14.156, 12.976, 12.976, 0.000128), strict=True))


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.mark.parametrize("cached", [False, True])
def test_the_time_left_is_that_of_the_stages_to_come(cached, clock, capsys):
    data = np.zeros((40, 32, 32, 3), "float32"), np.arange(40) % 2
    model = kresnets.CifarResNet20(classes=2)
    recipe = kresnets.Recipe(learning_rate=0.1, stages=("stage3", "stage2", "stem"), epochs_per_stage=3, head_epochs=0)
    plan = kresnets.plan(model, data, recipe=recipe)
    lines = progress.ProgressLines(plan, cached)
    lines.set_model(model)
    lines.on_train_begin()
    ends, whole = [], sum(COSTS.values())
    for stage in plan.stages:
        learning = GROUPS[GROUPS.index(stage.group) :]
        for layer in model.layers:
            layer.trainable = layer.name.startswith(learning)
        trained = sum(COSTS[name] for name in learning)
        step_takes = (trained if cached else whole) + 2 * trained
        for epoch in range(stage.first_epoch, stage.first_epoch + stage.epochs):
            lines.on_epoch_begin(epoch)
            for step in range(STEPS):
                lines.on_train_batch_begin(step)
                clock.seconds += step_takes + (TRACING * step_takes if step == 0 and epoch == stage.first_epoch else 0)
                lines.on_train_batch_end(step)
            lines.on_epoch_end(epoch, {"loss": 1.0})
            ends.append(clock.seconds)
    said = [int(a) * 60 + int(b) for a, b in re.findall(r", (\d+):(\d\d) left", capsys.readouterr().out)]
    assert len(said) == len(ends) == 9
    np.testing.assert_allclose(said, ends[-1] - np.array(ends), rtol=0.2)
    assert progress.costs(model, plan, cached)[-1] == pytest.approx(3e6 * whole, rel=0.01)
