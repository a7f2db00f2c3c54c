"""The page of apps/serve.py in a real browser: pictures dropped and chosen, files that are none, a phone's width."""

import base64
import io
import pathlib

import colours
import numpy as np
import pytest
from browsing import asked, complaints, eventually, open_page
from PIL import Image

pytest.importorskip("aiohttp")

from _bench.asking import Server

EVIL = "<img src=x onerror='window.hit = 1'><b>&amp;\"'.png"


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser):  # no browser: no server is started
    path = tmp_path_factory.mktemp("page") / "my <i>net & co"
    colours.export(path)
    with Server(path, "--poll", "0.1") as server:
        yield server


@pytest.fixture
def files(tmp_path):
    """Files as people drop them; the one of 20 MB is noise, which no format makes smaller."""
    found = {colour: (f"{colour}.jpg", colours.picture(colour, "JPEG", (640, 480))) for colour in ("red", "green")}
    found["evil"] = EVIL, colours.picture("blue")
    found["text"] = "notes.txt", b"no picture, only words\n" * 50
    found["empty"] = "empty.jpg", b""
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2600, 2600, 3), "uint8")).save(noise, "BMP")
    found["large"] = "holiday.bmp", noise.getvalue()
    found["svg"] = "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hit = 1</script></svg>'
    for key, (name, content) in found.items():
        found[key] = tmp_path / name
        found[key].write_bytes(content)
    assert found["large"].stat().st_size > 20e6
    return found


def choose(browser, *paths):
    browser.find_element("id", "files").send_keys("\n".join(str(path) for path in paths))


def drop(browser, *paths):
    """Drop files as a user does: events with a DataTransfer on what lies under the pointer."""
    contents = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    browser.execute_script(
        """
        const carried = new DataTransfer();
        for (const [name, text] of arguments[0])
          carried.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
        for (const kind of ["dragenter", "dragover", "drop"]) {
          const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried });
          document.getElementById("drop").dispatchEvent(event);
          if (kind !== "dragenter" && !event.defaultPrevented) throw new Error(kind + " was left to the browser");
        }
        """,
        contents,
    )


def answers(browser, count):
    """Wait for `count` answers, and return each file's name with its labels and scores, or its sentence."""
    done = "return document.querySelectorAll('#answers li[data-state=done]').length"
    assert eventually(lambda: browser.execute_script(done) == count, 30)
    rows = browser.execute_script(
        """
        return [...document.querySelectorAll('#answers li')].map(li => [
          li.querySelector('h2').textContent,
          li.querySelector('.bad')?.textContent ?? [...li.querySelectorAll('dt')].map(dt => [
            dt.textContent, dt.nextSibling.textContent,
            dt.nextSibling.nextSibling.firstChild.getBoundingClientRect().width
              / dt.nextSibling.nextSibling.getBoundingClientRect().width])])
        """
    )
    return dict(rows)


def check(row, colour):
    """Compare labels, percentages and the lengths of the bars with what was worked out by hand."""
    wanted = colours.expected(colour)
    assert [label for label, _, _ in row] == list(wanted)
    for (_, text, share), score in zip(row, wanted.values()):
        assert abs(float(text.removesuffix(" %")) / 100 - score) < 0.03 and abs(share - score) < 0.03


@pytest.mark.browser
@pytest.mark.parametrize("width", (1200, 360))
@pytest.mark.parametrize("give", (choose, drop))
def test_several_files_at_once(browser, server, files, give, width):
    open_page(browser, server.url, "ready", width)
    assert complaints(browser) == [] and asked(browser)
    assert browser.title == "my <i>net & co" == browser.find_element("css selector", "h1").text
    assert browser.find_element("id", "version").text == "version 1"
    sent = [files[key] for key in ("red", "evil", "text", "green", "empty", "svg")]
    give(browser, *sent)
    found = answers(browser, len(sent))
    assert list(found) == [path.name for path in sent]
    check(found["red.jpg"], "red")
    check(found["green.jpg"], "green")
    check(found[EVIL], "blue")
    assert found["notes.txt"] == found["drawing.svg"]
    assert found["notes.txt"] == "This is no image that can be decoded: JPEG, PNG, GIF or BMP is needed."
    assert found["empty.jpg"] == "This file is empty."
    assert browser.find_element("id", "status").text == "6 answered"
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    loaded = "return [...document.querySelectorAll('#answers img')].filter(i => i.naturalWidth && i.offsetWidth).length"
    assert eventually(lambda: browser.execute_script(loaded) == 3)
    assert browser.execute_script("return window.hit") is None
    assert browser.execute_script("return document.querySelectorAll('h1 i, h2 *, dt *').length") == 0
    assert complaints(browser) == []
    assert [url for url in asked(browser) if not url.startswith((server.url + "/", "blob:", "data:"))] == []


@pytest.mark.browser
def test_a_picture_of_20_mb_is_told_before_it_is_sent(browser, server, files):
    open_page(browser, server.url, "ready")
    asked(browser)
    choose(browser, files["large"], files["red"])
    found = answers(browser, 2)
    assert found["holiday.bmp"] == ("This file has 20.3 MB; the server takes up to 12.0 MB: make it smaller first.")
    check(found["red.jpg"], "red")
    assert len([url for url in asked(browser) if ":predict" in url]) == 1


@pytest.mark.browser
def test_the_largest_picture_that_the_page_allows_is_taken(browser, server, tmp_path):
    open_page(browser, server.url, "ready")
    largest = int(browser.execute_script("return document.body.dataset.largest"))
    path = tmp_path / "large.png"
    content = colours.picture("red")
    path.write_bytes(content + bytes(largest - len(content)))  # decoders stop at the end of a PNG
    choose(browser, path)
    check(answers(browser, 1)["large.png"], "red")
    choose(browser, path)  # the same file again is asked again
    answers(browser, 2)


@pytest.mark.browser
def test_the_keyboard_is_enough_and_the_version_is_told_anew(browser, server, files):
    from selenium.webdriver.common.keys import Keys

    open_page(browser, server.url, "ready")
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == "files" and "Drop photographs here" in focused.accessible_name
    outline = "return getComputedStyle(document.getElementById('drop')).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    browser.execute_script("document.getElementById('version').textContent = 'version 0'")
    choose(browser, files["red"])
    assert eventually(lambda: browser.find_element("id", "version").text == "version 1")


@pytest.mark.browser
def test_many_pictures_are_asked_a_few_at_a_time(browser, server, files):
    open_page(browser, server.url, "ready")
    drop(browser, *[files["red"]] * 30)
    answers(browser, 30)
    assert browser.find_element("id", "status").text == "30 answered"


@pytest.mark.browser
@pytest.mark.everything
def test_a_server_without_a_version_and_one_that_is_gone_are_said(browser, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "red.png").write_bytes(colours.picture("red"))
    with Server(tmp_path / "net", "--poll", "0.1") as server:
        open_page(browser, server.url, "ready")
        assert browser.find_element("id", "status").text.startswith("No version of the model is loaded yet")
        assert not browser.find_element("id", "drop").is_displayed()
        colours.export(tmp_path / "net")
        server.said("version 1 is served")
        open_page(browser, server.url, "ready")
    choose(browser, tmp_path / "red.png")
    assert answers(browser, 1) == {"red.png": "The server cannot be reached: is it still running?"}


@pytest.mark.browser
def test_a_script_that_came_in_would_not_run(browser, server):
    open_page(browser, server.url, "ready")
    browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.hit = 1';"
        "document.body.append(script); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\">')"
    )
    assert eventually(lambda: "Content Security Policy" in str(complaints(browser)))
    assert browser.execute_script("return window.hit") is None


def test_the_page_may_load_nothing_from_elsewhere():
    page = pathlib.Path(colours.__file__).parents[1] / "apps" / "_serve" / "page"
    texts = {file.name: file.read_text("utf-8") for file in page.iterdir()}
    assert sorted(texts) == ["index.html", "page.css", "page.js"]
    assert not [
        name for name, text in texts.items() if "http:" in text or "https:" in text or "//" in text.replace("// ", "")
    ]
    assert "innerHTML" not in texts["page.js"] and "style=" not in texts["index.html"]
    from _serve import web

    policy = web._HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
