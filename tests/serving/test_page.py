"""The server's page in a real browser: images dropped and chosen, files that are none, a phone's width."""

import colours
import pytest
import requests
from bench.asking import Server
from browsing import asked, complaints, drop, eventually, open_page

EVIL = "<img src=x onerror='window.hit = 1'><b>&amp;\"'.png"
ROWS = """
const width = element => element.getBoundingClientRect().width;
return [...document.querySelectorAll("#answers li[data-state=done]")].map(li => [
  li.querySelector("h2").textContent,
  li.querySelector(".bad")?.textContent ?? [...li.querySelectorAll(".bar")].map(bar => [
    bar.previousSibling.previousSibling.textContent, parseFloat(bar.previousSibling.textContent) / 100,
    width(bar.firstChild) / width(bar)])])"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "my <i>net & co"
    colours.export(path)
    with Server(path, "--poll", "0.1", "--max-mb", "2") as server:
        yield server


@pytest.fixture
def files(tmp_path):
    """Files as people drop them, by their names."""
    contents = {f"{colour}.jpg": colours.picture(colour, "JPEG", (640, 480)) for colour in ("red", "green")}
    contents |= {EVIL: colours.picture("blue"), "notes.txt": b"only words\n" * 50, "empty.jpg": b""}
    contents["drawing.svg"] = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hit = 1</script></svg>'
    # Decoders stop at the end of a PNG. In base64 the first is as much as the server takes, and the second too much.
    contents["largest.png"] = colours.picture("red").ljust((2_000_000 - 1000) // 4 * 3, b"\0")
    contents["larger.png"] = contents["largest.png"] + b"\0"
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def choose(browser, _, paths):
    browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))


def answers(browser, count):
    """Wait for answers, and return each file's name with its labels, percentages and bars, or its sentence."""
    assert eventually(lambda: len(browser.execute_script(ROWS)) == count, 30)
    return dict(browser.execute_script(ROWS))


@pytest.mark.browser
@pytest.mark.parametrize(("give", "width"), [(choose, 1200), (drop, 360)])
def test_several_files_at_once(browser, server, files, give, width):
    open_page(browser, server.url, "ready", width)
    assert complaints(browser) == [] and asked(browser)
    assert browser.title == "my <i>net & co" == browser.find_element("css selector", "h1").text
    assert browser.find_element("id", "version").text == "version 1"
    give(browser, "drop", files.values())
    found = answers(browser, len(files))
    assert list(found) == list(files)
    for name, colour in (("red.jpg", "red"), ("green.jpg", "green"), (EVIL, "blue"), ("largest.png", "red")):
        assert [label for label, *_ in found[name]] == list(colours.expected(colour))
        for (_, told, bar), score in zip(found[name], colours.expected(colour).values(), strict=True):
            assert told == pytest.approx(score, abs=0.03) and bar == pytest.approx(score, abs=0.03)
    none = "This is no image that can be decoded: JPEG, PNG, GIF or BMP is needed."
    assert found["notes.txt"] == found["drawing.svg"] == none and found["empty.jpg"] == "This file is empty."
    assert found["larger.png"] == "This file has 1.5 MB; the server takes up to 1.5 MB: make it smaller first."
    assert browser.find_element("id", "status").text == f"{len(files)} answered"
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    loaded = "return [...document.querySelectorAll('#answers img')].filter(i => i.naturalWidth && i.offsetWidth).length"
    assert eventually(lambda: browser.execute_script(loaded) == 4)
    assert browser.execute_script("return window.hit || document.querySelectorAll('h1 i, h2 *, dt *').length") == 0
    assert complaints(browser) == []
    assert [url for url in asked(browser) if not url.startswith((server.url + "/", "blob:", "data:"))] == []


@pytest.mark.browser
def test_numbers_are_told_by_name_and_tensors_not_asked_for(browser, files, tmp_path):
    colours.export_numbers(tmp_path / "numbers")
    with Server(tmp_path / "numbers") as server:
        open_page(browser, server.url, "ready")
        choose(browser, "drop", [files["red.jpg"]])
        assert eventually(lambda: browser.find_elements("css selector", "#answers dd"), 30)
        cells = [cell.text for cell in browser.find_elements("css selector", "#answers dt, #answers dd")]
        assert cells[::2] == ["red", "<i>green"]
        assert [float(cell) for cell in cells[1::2]] == pytest.approx(colours.COLOURS["red"][:2], abs=3)
        assert not browser.find_element("id", "no-files").is_displayed()
    colours.export_bands(tmp_path / "bands")
    with Server(tmp_path / "bands") as server:
        open_page(browser, server.url, "ready")
        assert browser.find_element("id", "no-files").is_displayed()
        assert not browser.find_element("id", "drop").is_displayed() and complaints(browser) == []


def test_the_page_may_load_nothing_from_elsewhere(server):
    for file in ("", "page.css", "page.js"):
        answer = requests.get(f"{server.url}/{file}", timeout=60)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
        assert answer.ok and not [bad for bad in ("://", "innerHTML", "style=") if bad in answer.text]


@pytest.mark.browser
def test_the_keyboard_is_enough_many_are_asked_and_what_changes_is_told(browser, server, files):
    open_page(browser, server.url, "ready")
    browser.find_element("tag name", "body").send_keys("\ue004")  # the key Tab
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == "files" and "Drop images here" in focused.accessible_name
    browser.execute_script("document.getElementById('version').textContent = 'version 0'")
    for count in (1, 2):  # the same file again is asked again
        choose(browser, "drop", [files["red.jpg"]])
        answers(browser, count)
    assert eventually(lambda: browser.find_element("id", "version").text == "version 1")
    drop(browser, "drop", [files["red.jpg"]] * 28)
    answers(browser, 30)
    assert eventually(lambda: browser.find_element("id", "status").text == "30 answered")
    server.stop()
    choose(browser, "drop", [files["green.jpg"]])
    assert answers(browser, 31)["green.jpg"] == "The server cannot be reached: is it still running?"
