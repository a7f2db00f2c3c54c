"""The documentation: its links lead somewhere, its tables are the package's, its Python runs; the README is short."""

import html.parser
import importlib.util
import subprocess
import sys
import urllib.parse

import docs_parts
import keras
import pages
import pytest
from pages import DOCS, SITE
from places import ROOT

import kresnets
from kresnets.cli import networks

README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


# --- the sources ---


@pytest.mark.parametrize("name", SOURCES)
def test_relative_links_and_pictures_are_there(name):
    for link in filter(pages.is_relative, pages.links(SOURCES[name])):
        file = urllib.parse.unquote(urllib.parse.urlsplit(link).path)
        assert not file or (DOCS / name).parent.joinpath(file).is_file(), f"docs/{name} leads to {link}"


def test_the_readme_is_short_and_whole_without_the_repository():
    assert len(README.splitlines()) <= 150
    links = pages.links(README)
    assert len(links) > 10 and [link for link in links if pages.is_relative(link)] == []
    config = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert f"\nurl = {SITE}\n" in config and f"Documentation = {SITE}\n" in config
    assert f"site_url: {SITE}\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_rows_of_the_readme_are_rows_of_the_docs():
    rows = [line for line in README.splitlines() if line.startswith(("| ResNe", "| BiT", "| Inception", "| Cifar"))]
    known = SOURCES["networks.md"].splitlines() + SOURCES["speed.md"].splitlines()
    assert len(rows) == 10 + 4 and [row for row in rows if row not in known] == []


@pytest.mark.parametrize("part", ["command", "run-files"])
def test_parts_made_from_the_package_are_as_it_is(part):
    [text] = [found[part] for found in map(docs_parts.parts, SOURCES.values()) if part in found]
    assert text == docs_parts.PARTS[part](), "write it anew: python apps/docs_parts.py"


@pytest.mark.everything
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.everything)])  # each is built, to be counted
def test_the_table_of_networks_is_that_of_the_rows(every):
    lines = docs_parts.parts(SOURCES["networks.md"])["networks"].splitlines()
    assert len(lines) == 2 + len(kresnets.SPECS)
    for name in list(kresnets.SPECS)[::every]:
        assert networks.row(name) in lines


def test_every_verb_has_its_options_in_the_docs():
    from kresnets_command import VERBS

    for verb in VERBS:
        assert f"\n## {verb}\n" in SOURCES["command.md"] and f"kresnets {verb}" in SOURCES["command.md"]


def test_the_python_of_the_readme_is_that_of_the_docs():
    blocks = pages.python_of(README)
    assert len(blocks) >= 2 and set(blocks) <= {
        *pages.python_of(SOURCES["index.md"]),
        *pages.python_of(SOURCES["fit.md"]),
    }


@pytest.mark.always("index.md", "fit.md")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.md", "images.md", "fit.md", "networks.md", "search.md", "weights.md"])
def test_the_python_of_the_docs_runs(name, tmp_path, monkeypatch):
    pages.make_folder(tmp_path / "my_folder")
    monkeypatch.chdir(tmp_path)
    blocks = pages.python_of(SOURCES[name])
    assert blocks
    for block in blocks:
        exec(compile(pages.small(block), name, "exec"), {})
        keras.backend.clear_session()
    if name == "search.md":
        assert len(list((tmp_path / "runs/mine/search").glob("trial_*/record.json"))) == 2
    if name == "index.md":
        assert (tmp_path / "saved_models" / "pets" / "1" / "saved_model.pb").is_file()


# --- the site ---


class _Page(html.parser.HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = {""}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag in ("a", "img", "link", "script"):
            self.links += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return dict path in the built site -> page, and the folder of the site."""
    for library in ("material", "mkdocstrings"):
        if importlib.util.find_spec(library) is None:
            pytest.skip("mkdocs is not installed: pip install 'kresnets[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder, {path: _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def _missing(folder, read, page, link):
    """Whether a link of the page leads nowhere in the site; one to elsewhere does not count."""
    if link.startswith(SITE):
        page, link = folder / "index.html", link.removeprefix(SITE)
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    anchors = read[target].anchors if target in read else {""}
    return not target.is_file() or urllib.parse.unquote(parts.fragment) not in anchors


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site):
    folder, read = site
    broken = [
        (str(page.relative_to(folder)), link)
        for page, found in read.items()
        if page.name != "404.html"  # its links begin at the root of the host
        for link in found.links
        if _missing(folder, read, page, link)
    ]
    assert broken == [] and len(read) > 30
    assert _missing(folder, read, folder / "index.html", "no-such-page/")
    assert _missing(folder, read, folder / "index.html", "fit/#no-such-part")


@pytest.mark.slow
def test_links_of_the_readme_lead_somewhere(site):
    folder, read = site
    links = [link for link in pages.links(README) if link.startswith(SITE)]
    assert [link for link in links if _missing(folder, read, folder / "index.html", link)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("kresnets", "kresnets.build"),
        ("callbacks", "kresnets.callbacks.StagedUnfreezing"),
        ("data", "kresnets.data.load_data"),
        ("transfer", "kresnets.fine_tune"),
        ("transfer", "kresnets.Recipe"),
        ("tuning", "kresnets.tuning.RecipeTuner"),
        ("export", "kresnets.export.export_saved_model"),
        ("devices", "kresnets.devices.all_devices"),
        ("serving", "kresnets.serving.server.run"),
    ],
)
def test_the_reference_has_the_public_names(site, page, name):
    folder, read = site
    assert name in read[folder / "reference" / page / "index.html"].anchors
