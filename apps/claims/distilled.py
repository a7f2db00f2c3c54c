"""The small trunk that ships carries over nearly as well as its teacher, and better than none."""

from claims import cells, default_recipe
from claims.cells import Cell
from claims.claim import Claim, Panel
from claims.judge import gap, mean, pick, tested

# Of none has either trunk seen an image.
CELLS = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128), Cell("digits", 100, 96), Cell("tiles", 65, 96))
STUDENT = {"network": "ResNet18DThin", "trunk": "kresnets/distilled"}
TEACHER = {"network": "ResNet50Thin", "trunk": "open_nsfw"}
NONE = STUDENT | {"trunk": "none"}
NEAR, AS_GOOD, GAIN = 0.02, 0.01, 0.05


def _settings(options, rows):
    if options.quick:
        return [cells.setting_of(cells.CHOSEN, None, cells.QUICK[1], 0, **STUDENT, dtype="float32")]
    wanted = []
    for seed in range(options.count(5)):
        wanted += [
            cells.setting_of(cells.CHOSEN, None, at, seed, **which) for at in CELLS for which in (STUDENT, TEACHER)
        ]
        (scratch,) = cells.SCRATCH.items()
        wanted.append(cells.setting_of(*scratch, CELLS[0], seed, **NONE))
    return wanted


def _findings(options, rows):
    for at in dict.fromkeys(cells.cell_of(row) for row in rows):
        here, place = pick(rows, **at._asdict(), keep="last"), f"{at.target}, {at.n} images"
        whose = {"distilled": STUDENT, "its teacher": TEACHER} | ({"none": NONE} if pick(here, **NONE) else {})
        means = "; ".join(
            f"{who} {mean(here, 'test_accuracy', **which):.3f} and {mean(here, 'test_auc', **which):.3f}"
            for who, which in whose.items()
        )
        near = gap(here, "test_auc", STUDENT, TEACHER)
        told = f"AUC, distilled less its teacher: {near.text()}. Accuracy and AUC: {means}."
        yield tested(f"{place}: the distilled trunk is within {NEAR} of its teacher's AUC.", near, told, least=-NEAR)
        if NONE not in whose.values():
            continue
        yield tested(f"{place}: it is within {AS_GOOD}.", near, f"{near.text()}.", least=-AS_GOOD)
        for column, least, what in (("test_accuracy", GAIN, "5 points of accuracy"), ("test_auc", 0.05, "0.05 of AUC")):
            more = gap(here, column, STUDENT, NONE)
            yield tested(f"{place}: it is {what} above none, or more.", more, f"{more.text()}.", least=least)


PANELS = (
    Panel("test_accuracy", ("target", "n"), "trunk", {"keep": "last"}),
    Panel("test_auc", ("target", "n"), "trunk", {"keep": "last"}),
)
CLAIM = Claim(_settings, default_recipe.CLAIM.measure, _findings, PANELS)
