"""Write the parts of the docs that are made from the package: python apps/docs_parts.py

A part stands between `<!-- made by python apps/docs_parts.py: NAME -->` and `<!-- end -->`; tests/test_docs_site.py
holds each to what this would write.
"""

import pathlib
import re

import _common

DOCS = pathlib.Path(__file__).parents[1] / "docs"
_PART = re.compile(r"(<!-- made by python apps/docs_parts.py: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(docs=DOCS):
    _common.import_tensorflow()
    for path in sorted(docs.rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path} is written anew")
    return 0


def parts(page):
    """Return dict name -> text of the parts that stand in a page.

    Example:
        >>> parts("<!-- made by python apps/docs_parts.py: files -->\\n\\n| file |\\n\\n<!-- end -->")
        {'files': '| file |'}
    """
    return {found[2]: found[0].removeprefix(found[1]).removesuffix(found[3]).strip() for found in _PART.finditer(page)}


def networks():
    """Return the table of all networks."""
    from kresnets.cli.networks import table

    return table()


def run_files():
    """Return the table of the files in a run's folder."""
    from kresnets.runs.folder import FILES

    lines = ["| file | what is in it | how long it stays |", "|---|---|---|"]
    until = {"kept": "for good", "finished": "until the run is finished"}
    return "\n".join(lines + [f"| `{file.pattern}` | {file.what} | {until[file.until]} |" for file in FILES])


def command():
    """Return the verbs of the command, each with all its options."""
    from kresnets_command import VERBS, make_app

    return "\n\n".join(_verb(make_app(verb), verb) for verb in VERBS)


def _verb(app, verb):
    text = app[verb].generate_docs(heading_level=2, usage_name=f"kresnets {verb}").strip()
    # A line that is a command is one in the docstring, too: cyclopts' help keeps it, Markdown would not.
    text = re.sub(r"^(kresnets \w+ .*[^.:\n])$", r"```sh\n\1\n```", text, flags=re.MULTILINE)
    text = re.sub(r"```console\n```sh\n(.*)\n```\n```", r"```console\n\1\n```", text)
    text = re.sub(r"\n    (?=\S)", " ", text)  # a description of several lines
    return text.replace(" *[default: False]*", "")


PARTS = {"networks": networks, "run-files": run_files, "command": command}

if __name__ == "__main__":
    _common.run(main)
