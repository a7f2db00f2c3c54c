"""A claim's page: what is told of it by hand (title, source, notes) and what was found; and the table of all pages.

The words are in `docs/claims/NAME.md` alone, blocks with an empty line between; whatever was measured is written anew.
"""

import collections
import dataclasses
import pathlib
import re

from claims.claim import TUNING_SEED
from claims.judge import VERDICTS
from kresnets._util import files
from kresnets.devices import hardware

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PICTURE, TABLE, TEXT = "picture.png", "results.csv", "text.md"


Words = collections.namedtuple("Words", "title source notes")  # what is told of a claim by hand


def words(name):
    """Return the `Words` of a claim's page."""
    path = DOCS / "claims" / f"{name}.md"
    if not path.is_file():
        return Words(name, "Source: not told yet.", ())
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    source = next(block for block in blocks if block.startswith("Source: "))
    return Words(blocks[0].partition(": ")[2], source, tuple(blocks[-2].split("\n")[1:]))


def folder_name(name, options):
    """Return the name of the folder of a claim, another one for other data and for --quick."""
    return "-".join(part for part in (name, options.data, "quick" if options.quick else None) if part)


def text(name, options, findings, settings, seconds):
    """Return the page without its picture: what was claimed, what was found, from how much."""
    told, whole = words(name), dataclasses.replace(options, quick=False)
    found = [f"- **{finding.verdict}**: {finding.claim} {finding.numbers}" for finding in findings]
    lines = [f"{'; '.join(_told(settings))}. {seconds / 60:.1f} minutes of computing on {hardware.describe()}."]
    lines += told.notes
    if options.quick:
        lines.append("This was `--quick`: it shows that the command works, and too little to judge by.")
    again = f"python apps/claims.py {name}" + " --quick" * options.quick
    again += "".join(f" --{n} {v}" for n, v in (("seeds", options.seeds), ("data", options.data)) if v is not None)
    heading = f"# {folder_name(name, whole)}: {told.title}"
    return "\n\n".join([heading, told.source, "\n".join(found), "\n".join(lines), f"`{again}`"]) + "\n"


def _told(settings):
    """Yield how many runs and seeds there are, and each other column with its values, where they are not too many."""
    seeds = {setting["seed"] for setting in settings if "seed" in setting}
    compared = len(seeds - {TUNING_SEED})
    told = f" with {compared} seed{'s' * (compared != 1)}" if seeds else ""
    yield f"{len(settings)} runs{told}" + " and one more to choose by" * (TUNING_SEED in seeds)
    for column in dict.fromkeys(column for setting in settings for column in setting if column != "seed"):
        given = [setting[column] for setting in settings if setting.get(column) is not None]
        values = dict.fromkeys(map(str, given)) if not any(isinstance(value, dict) for value in given) else ()
        if 1 <= len(values) <= 12:
            yield f"{column}: {', '.join(values)}"


def publish(folders, out, docs):
    """Write the page `docs/claims/FOLDER.md` of each finished claim, its picture beside it, and the table of all pages,
    `docs/claims.md`; the page of what did not run here stays as it is, and so does the text above the table."""
    rows = []
    for folder in folders:
        page = docs / "claims" / f"{folder}.md"
        if (out / folder / TEXT).is_file():
            heading, _, rest = (out / folder / TEXT).read_text(encoding="utf-8").partition("\n")
            files.write_bytes(page.with_suffix(".png"), (out / folder / PICTURE).read_bytes())
            files.write_text(page, f"{heading}\n\n![{folder}]({folder}.png)\n{rest.rstrip()}\n")
        if page.is_file():
            rows.append(_table_row(folder, page.read_text(encoding="utf-8")))
    above, line, _ = (DOCS / "claims.md").read_text(encoding="utf-8").partition("|---|---|---|\n")
    files.write_text(docs / "claims.md", above + line + "".join(rows))


def _table_row(folder, page):
    """Return the line of the table for a page: its title, how many findings got each verdict, its command."""
    title = page.partition("\n")[0].removeprefix(f"# {folder}: ")
    counts = [(len(re.findall(rf"^- \*\*{verdict}\*\*", page, re.MULTILINE)), verdict) for verdict in VERDICTS]
    told = ", ".join(f"{count} {verdict}" for count, verdict in counts if count) or "not run yet"
    cells = (f"[{folder}](claims/{folder}.md): {title}", told, page.rstrip().rpartition("\n")[2])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
