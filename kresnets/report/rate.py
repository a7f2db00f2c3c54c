"""The picture of a learning-rate range test."""

import numpy as np

from kresnets.report import figures

_CHOSEN, _OTHER, _LOSS = "#c2410c", "#64748b", "#1d4ed8"


def range_test(rates, losses, smoothed, suggestions, choice, path):
    """Draw loss against learning rate with the suggestions marked, the chosen one in full.

    Args:
        rates: learning rate of each step.
        losses: loss of each step.
        smoothed: their moving average.
        suggestions: dict of rule -> rate.
        choice: the rule whose rate is taken.
        path: of the PNG file, written beside and renamed.

    Example:
        >>> import numpy as np
        >>> from kresnets.report.rate import range_test
        >>> rates = np.geomspace(1e-5, 1, 50)
        >>> losses = (np.log10(rates) + 2) ** 2
        >>> range_test(rates, losses, losses, {"steepest": 1e-3, "valley": 3e-3}, "valley", "/tmp/rate.png")
    """
    made = figures.figure(900, 420, layout="constrained")
    axis = made.subplots()
    axis.plot(rates, losses, ".", color=_LOSS, alpha=0.25, markersize=6, label="each batch")
    axis.plot(rates, smoothed, color=_LOSS, linewidth=2.2, label="smoothed")
    for rule, rate in sorted(suggestions.items(), key=lambda item: item[0] == choice):
        chosen = rule == choice
        style = {"color": _CHOSEN, "linewidth": 2} if chosen else {"color": _OTHER, "linewidth": 1.2, "linestyle": "--"}
        axis.axvline(rate, label=f"{rule} {rate:.2g}{', chosen' if chosen else ''}", **style)
        height = smoothed[int(np.argmin(np.abs(np.log(rates / rate))))]
        axis.plot([rate], [height], "o", color=style["color"], markersize=9 if chosen else 6)
    axis.set_xscale("log")
    # Single batches, and the end of a test that diverged, may be far above all that matters.
    low, high = min(losses), max(smoothed[: int(np.argmin(smoothed)) + 1])
    axis.set_ylim(low - 0.05 * (high - low or 1), high + 0.3 * (high - low or 1))
    axis.set_xlabel("learning rate", fontsize=figures.TEXT + 1)
    axis.set_ylabel("loss", fontsize=figures.TEXT + 1)
    axis.tick_params(labelsize=figures.TEXT)
    axis.grid(color="#e4e4e4", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside upper right", ncols=4, fontsize=figures.TEXT, frameon=False)
    figures.save(made, path)
