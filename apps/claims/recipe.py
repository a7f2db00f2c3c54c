"""The recipe that freeze-or-finetune points to against the textbook's, on pictures that it was not chosen by."""

from claims import transfer
from claims.claim import Panel
from claims.judge import gap, mean, pick, tested
from kresnets import Recipe

# Targets of real photographs with the images to learn from; the recipe was chosen by none of them.
TARGETS = {"elpv/poly": (75, 250), "tiles": (65, 195), "cifar10": (100, 400)}
TRUNK = {"network": "ResNet50Thin", "trunk": "open_nsfw"}
EPOCHS, SPEEDS = ("head_epochs", "epochs_per_stage"), ("learning_rate", "trunk_learning_rate", "ratio")
# Written out, so that a later change of a default does not change what was measured.
TEXTBOOK = dict(zip(EPOCHS + SPEEDS, (3, 3, 1e-3, 1e-4, 0.5)))
# What is taken from the measured recipe in place of the textbook's: each step alone and both.
BOTH = EPOCHS + SPEEDS
WAYS = dict(zip(
    ("textbook", "more epochs", "higher rates", "measured", "measured, norms learn"), ((), EPOCHS, SPEEDS, BOTH, BOTH)
))  # fmt: skip


def fields(way, n):
    """Return the fields of `kresnets.Recipe` that say a way, for so many pictures to learn from."""
    measured = {name: getattr(Recipe.for_images(n), name) for name in WAYS[way]}
    return TEXTBOOK | measured | ({"batchnorm": "train"} if way == "measured, norms learn" else {})


def _settings(options, rows):
    quick, common = options.quick, transfer.common(options.quick) | ({} if options.quick else TRUNK)
    cells = [(target, n) for target, sizes in TARGETS.items() for n in sizes]
    return [
        common
        | {"target": target, "n": n, "way": way, "seed": seed}
        | fields(way, n)
        | (dict.fromkeys(EPOCHS, 1) if quick else {})
        for seed in range(options.count(transfer.SEEDS))
        for target, n in (cells[:1] if quick else cells)
        for way in (("textbook", "measured") if quick else WAYS)
    ]


def _recipe(setting):
    named = {name: setting[name] for name in (*TEXTBOOK, "augment", "seed")}
    return Recipe.textbook(**named, batchnorm=setting.get("batchnorm", "frozen"))


def _findings(options, rows):
    names, textbook = ("target", "n"), {"way": "textbook"}
    places = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    cells = [dict(zip(names, place)) for place in places]
    ways = [way for way in WAYS if pick(rows, way=way)]
    for way in ways[1:]:
        over = gap(rows, "test_accuracy", {"way": way}, textbook, cells)
        told = f"Test accuracy, mean over {len(cells)} targets and sizes: {over.points()}."
        yield tested(f"'{way}' is better than the textbook's recipe.", over, told)
    for cell in cells:
        found = gap(rows, "test_accuracy", {"way": "measured"}, textbook, **cell)
        means = ", ".join(f"{way} {mean(rows, 'test_accuracy', way=way, **cell):.3f}" for way in ways)
        claim = f"{cell['target']}, {cell['n']} images: 'measured' is better than the textbook's recipe."
        yield tested(claim, found, f"{found.points()}. Means: {means}.")


PANELS = (Panel("test_accuracy", ("target", "n"), "way"),)
CLAIM = transfer.claim(_settings, _findings, PANELS, recipe=_recipe)
