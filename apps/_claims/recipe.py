"""The recipe that freeze-or-finetune points to against the textbook's, on pictures that it was not chosen by."""

from _claims import rates, transfer
from _claims.claim import Claim, Finding
from _claims.verdicts import above, interval, paired

# Source and target, none of which freeze-or-finetune was judged by, with the sizes.
PAIRS = {
    ("digits", "mnist"): (100, 500),
    ("elpv/poly", "tiles"): (65, 195),
    ("digits", "elpv/poly"): (75, 250),
}
MIRRORED = ("tiles", "elpv/poly")  # what is the same thing mirrored; a digit is not
# What differs from the textbook, each step alone and both.
WAYS = {
    "textbook": "#6b7280",
    "more epochs": "#a16207",
    "higher rates": "#7e22ce",
    "measured": "#1d4ed8",
    "measured, norms learn": "#d97706",
}


def fields(way, n):
    """Return the fields of `kresnets.Recipe` that say a way, for so many pictures to learn from."""
    from kresnets import Recipe

    # Written out, so that a later change of a default does not change what was measured.
    textbook = {
        "head_epochs": 3,
        "epochs_per_stage": 3,
        "learning_rate": 1e-3,
        "trunk_learning_rate": 1e-4,
        "ratio": 0.5,
    }
    measured = {name: getattr(Recipe.for_images(n), name) for name in textbook}
    epochs, speeds = ("head_epochs", "epochs_per_stage"), ("learning_rate", "trunk_learning_rate", "ratio")
    if way == "measured, norms learn":
        return measured | {"batchnorm": "train"}
    taken = {"textbook": (), "more epochs": epochs, "higher rates": speeds, "measured": (*epochs, *speeds)}[way]
    return textbook | {name: measured[name] for name in taken}


def _settings(options, rows):
    quick = options.quick
    pairs = {("digits", "mnist"): (100,)} if quick else PAIRS
    wanted = [
        {"task": "carry", "source": source, "target": target, "n": n, "way": way}
        | (fields(way, n) | ({"head_epochs": 1, "epochs_per_stage": 1} if quick else {}))
        | transfer.network(quick)
        | {"augment": "light" if target in MIRRORED and not quick else "none", "seed": seed}
        for seed in range(options.seeds or (1 if quick else 3))
        for (source, target), sizes in pairs.items()
        for n in sizes
        for way in (("textbook", "measured") if quick else WAYS)
    ]
    return transfer.with_lessons(wanted, rows, quick)


def _measure(setting, kept):
    if setting["task"] == "teach":
        return transfer.teach(setting, kept)
    import kresnets

    pictures = transfer.data(setting["target"], setting["size"], setting["n"], setting["seed"])
    lesson = setting | transfer.teaching(setting["source"], setting["seed"], setting["depth"] == 1)
    model = transfer.build(setting, len(pictures.class_names), transfer.trunk(lesson, kept))
    named = ("head_epochs", "epochs_per_stage", "learning_rate", "trunk_learning_rate", "ratio", "augment", "seed")
    recipe = kresnets.Recipe.textbook(
        **{name: setting[name] for name in named}, batchnorm=setting.get("batchnorm", "frozen")
    )
    return [transfer.fine_tuned(model, pictures, recipe)]


def _cells(rows):
    return list(dict.fromkeys((row["source"], row["target"], row["n"]) for row in rows if row["task"] == "carry"))


def _of(rows, cell, way):
    source, target, n = cell
    return rates.compared(rows, "test_accuracy", task="carry", source=source, target=target, n=n, way=way)


def _findings(options, rows):
    cells, found = _cells(rows), []
    ways = [way for way in WAYS if way != "textbook" and any(row.get("way") == way for row in rows)]
    for way in ways:
        gaps = [{seed: _of(rows, c, way)[seed] - v for seed, v in _of(rows, c, "textbook").items()} for c in cells]
        over = interval([sum(gap[seed] for gap in gaps) / len(gaps) for seed in sorted(gaps[0])])
        found.append(
            Finding(
                claim=f"'{way}' is better than the textbook's recipe.",
                verdict=above(over),
                numbers=f"Test accuracy, mean over {len(cells)} targets and sizes: {over.text(' points', 1, 100)}.",
            )
        )
    for cell in cells:
        gap = paired(_of(rows, cell, "measured"), _of(rows, cell, "textbook"))
        means = {way: sum(_of(rows, cell, way).values()) / len(_of(rows, cell, way)) for way in ("textbook", *ways)}
        found.append(
            Finding(
                claim=f"{cell[0]} to {cell[1]}, {cell[2]} images: 'measured' is better than the textbook's recipe.",
                verdict=above(gap),
                numbers=f"{gap.text(' points', 1, 100)}. Means: "
                + ", ".join(f"{way} {mean:.3f}" for way, mean in means.items())
                + ".",
            )
        )
    return found


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1000, 420, layout="constrained")
    axis, cells = made.subplots(), _cells(rows)
    for place, cell in enumerate(cells):
        for shift, (way, colour) in enumerate(WAYS.items()):
            values = list(_of(rows, cell, way).values())
            if values:
                at = place + 0.15 * (shift - 2)
                axis.plot([at] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
                axis.plot(at, sum(values) / len(values), "s", color=colour, label=None if place else way)
    axis.set_xticks(range(len(cells)), [f"{source} to\n{target}, {n}" for source, target, n in cells])
    axis.set_ylabel("test accuracy")
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside upper right", ncols=5, frameon=False)
    figures.save(made, path)


def _cost(setting):
    if setting["task"] == "teach":
        return 40.0
    return 8.0 + 0.0015 * setting["n"] * (setting["head_epochs"] + 2 * setting["epochs_per_stage"])


CLAIM = Claim(
    title="the recipe by data size that freeze-or-finetune points to is better than the textbook's",
    source="`kresnets.Recipe.for_images` against the defaults of `kresnets.Recipe` (1801.06146 in spirit)",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=_cost,
    keeps=True,
    data=(),
    notes=(
        "The trunks are those of freeze-or-finetune; its target, monocrystalline cells, does not occur here. Nothing "
        "was "
        "tuned on these images. In freeze-or-finetune norms that learn did best more often than not, so they are "
        "tried too. 'more epochs' and 'higher rates' take one half of 'measured' each.",
    ),
)
