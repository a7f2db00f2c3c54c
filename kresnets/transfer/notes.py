"""What went otherwise than planned, and what to try then, as sentences."""

import numpy as np

from kresnets.callbacks import Progress
from kresnets.keras_hooks.graph import with_inner

_ENOUGH = 20  # validation images from which on their loss tells a trend


def of(plan, schedule, history):
    """Return what went otherwise than planned, as sentences."""
    losses, judged = (history.history.get(name, []) for name in ("loss", "val_loss"))
    rows = [
        {"epoch": e, **{k: v[e] for k, v in history.history.items() if len(v) == len(losses)}}
        for e in range(len(losses))
    ]
    notes = [
        f"The stage {schedule.stages[index][0]!r} ended with a training loss of {after:.3g}, "
        f"{'no better than chance' if schedule.enters and not index else f'where it began at {before:.3g}'}: it was "
        "undone. Its rate may be too high: give a lower trunk_learning_rate (or learning_rate, if it is the first "
        "stage)."
        for index, before, after in Progress.replay(schedule, rows).undone
    ]
    waiting = [stage for stage in plan.stages if stage.first_epoch >= len(losses)]
    if losses and waiting and plan.recipe.advance != "plateau":
        notes.append(
            f"A callback stopped the training after {len(losses)} of {plan.epochs} epochs, before the stage "
            f"{waiting[0].group!r} (from epoch {waiting[0].first_epoch + 1} on) had begun: what it would have unfrozen "
            "was not trained."
        )
    if plan.facts.validation >= _ENOUGH and still_improves(judged):
        notes.append(
            f"Validation still improved when training ended (loss {judged[-1]:.3g} in the last of {len(judged)} "
            "epochs, the lowest): more "
            f"may be gained by {_longer(plan)}."
        )
    return notes


def advice(model, plan, loss):
    """Say what to try where a training comes to no numbers."""
    rates = f"learning_rate={plan.recipe.learning_rate:g}, trunk_learning_rate={plan.recipe.trunk_learning_rate:g}"
    tries = [f"lower rates (now {rates})"]
    if any(layer.compute_dtype == "float16" for layer in with_inner(model)):
        tries.append("float32 or bfloat16 in place of float16, which ends at 65504")
    tries.append("looking for images or weights of images that are no numbers")
    tries += ["looking into the `loss`, which is your own"] * (loss is not None)
    return f"Try {'; '.join(tries)}."


def _longer(plan):
    """Say how a plan's last stage is made twice as long."""
    if plan.recipe.timetable is not None:
        return "a longer last stage in the schedule"
    name = "head_epochs" if plan.stages[-1].group == plan.facts.groups[-1] else "epochs_per_stage"
    return f"{'max_epochs_per_stage' if plan.recipe.advance == 'plateau' else name}={2 * plan.stages[-1].epochs}"


def still_improves(losses):
    """Whether the last tenth of the epochs is the best, and better by 2 % than the tenth before it."""
    tenth = max(1, len(losses) // 10)
    if len(losses) < 3 or not np.isfinite(losses).all():
        return False
    return losses[-1] == min(losses) and np.mean(losses[-tenth:]) < 0.98 * np.mean(losses[-2 * tenth : -tenth])
