"""A headless Chromium for tests of pages; `conftest.py` has the fixture."""

import base64
import json
import shutil
import time

import pytest


def start():
    """Return a driver of a Chromium that resolves no name: what a page shows, it or this machine brought along."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(programs):
        pytest.skip("no Chromium here: make browser installs it")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-unsafe-swiftshader",  # WebGL without a graphics card
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))  # the path: Selenium fetches no driver
    driver.set_window_size(1200, 900)
    return driver


def open_page(browser, url, ready, width=1200):
    """Open a page at a width in pixels and wait until `document.body.dataset` has the key `ready`."""
    from selenium.webdriver.support.wait import WebDriverWait

    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get("about:blank")
    browser.get(url)
    WebDriverWait(browser, 30).until(
        lambda browser: browser.execute_script("return document.body.dataset[arguments[0]]", ready)
    )


def complaints(browser):
    """Return what the console has said since the last call."""
    return [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


def asked(browser):
    """Return the URLs that were asked for since the last call."""
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def eventually(found, seconds=10):
    """Return the first true answer, or the last one."""
    end = time.monotonic() + seconds
    while not (answer := found()) and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def drop(browser, identifier, paths):
    """Drop files on an element as a user does: events with a DataTransfer."""
    browser.execute_script(
        """
        const [files, identifier] = arguments, carried = new DataTransfer();
        for (const [name, text] of files)
          carried.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
        for (const kind of ["dragenter", "dragover", "drop"]) {
          const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried });
          document.getElementById(identifier).dispatchEvent(event);
          if (kind !== "dragenter" && !event.defaultPrevented) throw new Error(kind + " was left to the browser");
        }
        """,
        [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths],
        identifier,
    )
