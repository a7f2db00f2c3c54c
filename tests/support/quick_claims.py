"""Run a claim quickly, and assert what every claim leaves behind."""

from claims import page, runner
from claims.claim import Options
from PIL import Image


def run(name, folder, options=Options(quick=True)):
    """Return the findings, the rows, and the lines of progress."""
    said = []
    findings = runner.run(name, options, folder, 1, said.append)
    rows = [one["setting"] | row for one in runner.read_runs(folder / runner.RUNS).values() for row in one["rows"]]
    path = folder / page.PICTURE
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width >= 800 and path.stat().st_size < 300_000
    text = (folder / page.TEXT).read_text()
    assert page.words(name).title in text and all(f"- **{one.verdict}**: {one.claim}" in text for one in findings)
    assert (folder / page.TABLE).read_text().count("\n") == len(rows) + 1
    return findings, rows, said
