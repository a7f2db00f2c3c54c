"""What a shortcut does where shapes differ: zero-padded identity (A), projection there (B), projection everywhere
(C)."""

import dataclasses

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.degradation import spec as cifar
from _claims.verdicts import above, exactly, paired

KINDS = {"plain": "#c2410c", "A": "#1d4ed8", "B": "#0f766e", "C": "#7e22ce"}
RATES = (0.1, 0.3)
# Top-1 error on ImageNet of 34 layers, 10 crops, in percent (table 3).
PUBLISHED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}


def spec(kind, depth):
    """Return the row of a CIFAR network with this shortcut, or its plain twin."""
    return cifar("plain", depth) if kind == "plain" else dataclasses.replace(cifar("residual", depth), shortcut=kind)


def _settings(options, rows):
    depth, epochs = (8, 3) if options.quick else (20, 30)
    networks = [rates.images(options) | {"depth": depth, "kind": kind, "epochs": epochs} for kind in KINDS]
    tried = (0.1,) if options.quick else RATES
    return rates.tuned(networks, tried, options.seeds or (1 if options.quick else 5), rows)


def _measure(setting):
    import kresnets

    row = spec(setting["kind"], setting["depth"])
    size = setting["size"]
    counts = kresnets.summarize(kresnets.build(row, input_shape=(size, size, 3)))
    made = rates.learned(row, setting)
    return [each | {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds} for each in made]


def _findings(options, rows):
    def fewer_errors(one, other, part="test"):
        ends = (rates.compared(rows, f"{part}_error", kind=kind) for kind in (other, one))
        return paired(*ends)

    cost = {row["kind"]: (row["parameters"], row["multiply_adds"]) for row in rows}
    found = [
        Finding(
            claim=(
                "A shortcut that pads with zeros costs neither parameters nor multiply-adds, and C costs more than B."
            ),
            verdict=exactly(cost["A"] == cost["plain"] and cost["A"] < cost["B"] < cost["C"]),
            numbers="Parameters and multiply-adds: "
            + ", ".join(f"{kind} {a:,} and {b:,}" for kind, (a, b) in cost.items())
            + ".",
        )
    ]
    for one, other in (("A", "plain"), ("B", "A"), ("C", "B")):
        saved = fewer_errors(one, other)
        found.append(
            Finding(
                claim=f"{one} makes fewer errors than {other} on images it has not seen.",
                verdict=above(saved),
                numbers=f"Test error, {other} less {one}: {saved.text(' points', 2, 100)}.",
            )
        )
    return found


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(900, 420, layout="constrained")
    left, right = made.subplots(1, 2)
    for place, (kind, colour) in enumerate(KINDS.items()):
        errors = [100 * error for error in rates.compared(rows, "test_error", kind=kind).values()]
        left.plot([place] * len(errors), errors, "o", color=colour, alpha=0.5)
        left.plot(place, sum(errors) / len(errors), "_", color=colour, markersize=28)
        rates.curves(right, rows, "-", colour, kind, kind=kind)
    left.set(title="a dot a seed", xticks=range(len(KINDS)), xticklabels=KINDS, ylabel="test error, percent")
    left.set_xlim(-0.5, len(KINDS) - 0.5)
    right.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title=(
        "any shortcut is better than none; projections (B, C) are a little better than padding with zeros (A), at "
        "a cost"
    ),
    source="arXiv 1512.03385 section 4.1, table 3",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    notes=(
        "CIFAR networks of 20 layers, each at its own best rate of the same few (by the training loss of one more "
        "seed).",
        "The paper's top-1 errors on ImageNet, 34 layers, 10 crops: "
        + ", ".join(f"{kind} {error} %" for kind, error in PUBLISHED.items())
        + ".",
    ),
)
