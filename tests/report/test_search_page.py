"""The page of a search as an HTML parser sees it, and in a real browser that no network reaches."""

import html.parser
import json
import math
import random
import statistics
import sys
import time
from unittest import mock

import pytest
from browsing import asked, complaints, eventually, open_page

from kresnets.report import importance as importance_module
from kresnets.report.parameters import described
from kresnets.report.search import search_page

graph_objects = pytest.importorskip("plotly.graph_objects")

THAWS = ("head", "stage4", "stage3", "stage2", "stem")
EVIL = (
    "<a href='https://a.invalid'>a</a></script><script>window.hit = 1</script>"
    "<img src=x onerror='window.hit = 1'><b>&amp;</b>\u2028 \"'"
)
METRICS = {"count": 80, "accuracy": 0.875, "accuracy_interval": [0.8, 0.9375], "per_class": {}, "notes": []}


def made_records(number, seed=0):
    """Return trials such as a search makes: of five, one is pruned and, later on, one fails."""
    rng, records, started = random.Random(seed), [], 1.7e9
    for i in range(number):
        values = {
            "thaw": rng.choice(THAWS),
            "learning_rate": 10 ** rng.uniform(-4, -2),
            "optimizer": rng.choice(("adamw", "sgd")),
        }
        if values["thaw"] != "head":
            values |= {"trunk_learning_rate": 10 ** rng.uniform(-5, -3), "ratio": rng.uniform(0.1, 1)}
        score = 0.4 + 0.05 * abs(THAWS.index(values["thaw"]) - 2) + rng.uniform(0, 0.02)
        status = "pruned" if i % 5 == 3 else "failed" if i % 5 == 4 else "completed"
        epochs = [
            {"epoch": e, "stage": "head" if e < 2 else "stage4", "loss": score + 1 / (e + 2),
             "val_loss": score + 1 / (e + 1),
             "accuracy": 0.9 - 0.3 / (e + 1), "val_accuracy": 0.8 - 0.3 / (e + 1)}
            for e in range(4)
        ]  # fmt: skip
        records.append({
            "trial_id": f"{i:03d}", "status": status, "score": None if status == "failed" else score, "values": values,
            "reason": {"failed": "The loss became NaN.", "pruned": "Worse than the median."}.get(status),
            "started": started, "seconds": 30.0 + i % 7, "epochs": 4, "scores": [score], "history": epochs,
        })  # fmt: skip
        started += 40
    return records


class Page(html.parser.HTMLParser):
    """What a parser makes of a page: its tags with their attributes, its text, its plots and its table."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.parts, self.rows, self.inside, self.json, self.exact = [], [], [], [], "", []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(dict(attrs).get("id", tag))
        if "data-trial" in dict(attrs):
            self.rows.append(dict(attrs)["data-trial"])
            self.exact.append([])
        if "data-value" in dict(attrs):
            self.exact[-1].append(float(dict(attrs)["data-value"]))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.parts.append(data)
        elif self.inside[-1] == "data":
            self.json += data

    @property
    def text(self):
        return " ".join(" ".join(self.parts).split())

    @property
    def plots(self):
        """The figures by id; Plotly's Python package checks each of their fields."""
        data = json.loads(self.json, parse_constant=pytest.fail)
        for figure in data["plots"]:
            for theme in data["themes"].values():
                graph_objects.Figure(figure["data"], {**figure["layout"], "template": theme})
        return {figure["id"]: figure for figure in data["plots"]}


def page_of(tmp_path, records, resamples=2, **arguments):
    with mock.patch.object(importance_module, "_BOOTSTRAPS", resamples):  # which take most of the time
        search_page(tmp_path / "search.html", records, **arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["search.html"]
    return Page(tmp_path / "search.html")


@pytest.mark.parametrize("number", (0, 1, 30))
def test_the_table_and_the_plots_hold_every_trial(tmp_path, number):
    records = made_records(number)
    page = page_of(tmp_path, records)
    assert sorted(page.rows) == [record["trial_id"] for record in records]
    for row, exact in zip(page.rows, page.exact):
        record = records[int(row)]
        numbers = [record["score"], *record["values"].values(), record["seconds"]]
        assert sorted(exact) == sorted(value for value in numbers if isinstance(value, float))
    points = {}
    for trace in page.plots["history"]["data"] if number else ():
        points |= zip(trace.get("customdata", ()), zip(trace["x"], trace["y"]))
    assert len(points) == number
    for i, record in enumerate(records):
        x, y = points[record["trial_id"]]
        assert x == i + 1 and record["score"] in (None, y)


def test_the_best_so_far_is_that_of_completed_trials(tmp_path):
    for direction, better in (("min", min), ("max", max)):
        records = made_records(30)
        line = page_of(tmp_path, records, objective=("val_loss", direction)).plots["history"]["data"][0]
        scores = [r["score"] if r["status"] == "completed" else None for r in records]
        expected = [better(score for score in scores[: i + 1] if score is not None) for i in range(30)]
        assert (line["name"], line["y"]) == ("best so far", expected)


def test_what_is_no_number_can_still_be_read(tmp_path):
    record = {
        "trial_id": "0",
        "status": "failed",
        "score": math.nan,
        "values": {"stages": ("a", "b"), "ema": None},
        "seconds": math.inf,
    }
    page = page_of(tmp_path, [record])
    assert "0 failed – a, b – – –" in page.text and list(page.plots) == ["history"]


def test_nothing_from_the_data_becomes_markup(tmp_path):
    plain = page_of(
        tmp_path,
        [{"trial_id": "0", "status": "failed", "reason": "bad", "values": {"thaw": "head"}}],
        command="c",
        notes=["n"],
    )
    record = {
        "trial_id": EVIL,
        "status": "failed",
        "reason": EVIL,
        "values": {EVIL: EVIL},
        "history": [{"stage": EVIL}],
    }
    page = page_of(
        tmp_path, [record], objective=(EVIL, "max"), title=EVIL, command=EVIL, notes=[EVIL], space={EVIL: [EVIL]},
    )  # fmt: skip
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.text.count("window.hit = 1") >= 8
    assert page.rows == [EVIL]


def test_the_verdict_is_escaped_too(tmp_path):
    page = page_of(tmp_path, [], winner={"winner": {**METRICS, EVIL: 0.5}, "difference": {EVIL: 0.1}, "sentence": EVIL})
    assert not {"a", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count("window.hit = 1") == 6


def test_a_page_loads_nothing(tmp_path):
    page = page_of(tmp_path, made_records(30), running=True)
    loads = [
        (tag, name, value)
        for tag, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "action")
    ]
    assert loads == [("link", "href", "data:,")]
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy
    style = (tmp_path / "search.html").read_text("utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_the_best_comes_first_and_failures_last(tmp_path):
    for direction, sign in (("min", 1), ("max", -1)):
        records = made_records(30)
        page = page_of(tmp_path, records, objective=("val_loss", direction))
        completed = sorted((r for r in records if r["status"] == "completed"), key=lambda r: sign * r["score"])
        assert page.rows[: len(completed)] == [record["trial_id"] for record in completed]
        assert {records[int(row)]["status"] for row in page.rows[-6:]} == {"failed"}
        assert f"Best so far: trial {completed[0]['trial_id']} with thaw" in page.text
        star = next(trace for trace in page.plots["history"]["data"] if trace["name"] == "completed")
        stars = [i for i, mark in enumerate(star["marker"]["symbol"]) if mark == "star"]
        assert [star["customdata"][i] for i in stars] == [completed[0]["trial_id"]]


def test_a_running_search_says_so_and_loads_itself_again(tmp_path):
    records = made_records(4) + [{"trial_id": "004", "status": "running", "values": {}}]
    refresh = ("meta", {"http-equiv": "refresh", "content": "30"})
    page = page_of(tmp_path, records, total=24, running=True)
    assert refresh in page.tags and "The search is running: 4 of 24 trials are done." in page.text
    page = page_of(tmp_path, records, total=24)
    assert refresh not in page.tags and "is running" not in page.text and "trials done 4 of 24 1 running" in page.text


def test_failures_are_counted_with_their_reasons(tmp_path):
    page = page_of(tmp_path, made_records(10))
    assert "2 × The loss became NaN. (trials 004, 009)" in page.text
    failed = [{**record, "status": "failed", "score": None} for record in made_records(4)]
    assert "No trial has completed yet, so there is nothing to draw." in page_of(tmp_path, failed).text


def test_the_winner_stands_beside_the_default_with_intervals(tmp_path):
    default = {**METRICS, "accuracy": 0.85, "accuracy_interval": [0.7625, 0.925]}
    winner = {
        "winner": METRICS,
        "default": default,
        "head-only": {**METRICS, "accuracy": 0.5, "accuracy_interval": [0.375, 0.625]},
        "names": ["winner", "default", "head-only"],
        "difference": {"accuracy": 0.025, "interval": [-0.05, 0.1]},
        "sentence": "It did not.",
    }
    text = page_of(tmp_path, made_records(3), winner=winner).text
    assert "accuracy 0.875 0.800 to 0.938 0.850 0.762 to 0.925 0.500 0.375 to 0.625" in text and "It did not." in text
    assert "Difference in accuracy: +0.025, 95 % interval -0.050 to +0.100. It contains 0" in text


def test_what_alone_moves_the_score_is_most_important(tmp_path):
    rng = random.Random(1)
    records = made_records(60)
    for record in records:
        record.update(
            status="completed", score=abs(math.log10(record["values"]["learning_rate"]) + 3) + rng.uniform(0, 0.01)
        )
    page = page_of(tmp_path, records, resamples=8)
    bars = page.plots["importance"]["data"][0]
    *others, first = zip(bars["x"], bars["error_x"]["arrayminus"], bars["error_x"]["array"])  # the topmost is the last
    assert bars["y"][-1] == "learning_rate" and 0.7 < first[0] - first[1] <= first[0] <= first[0] + first[2] < 1.3
    assert all(mean + above < 0.2 for mean, _, above in others)
    assert page.plots["slice-0"]["layout"]["xaxis"]["title"]["text"] == "<b>learning_rate</b>"
    assert "Permutation importance (scikit-learn)" in page.text and "bootstrap" in page.text


def test_importance_is_the_share_of_variance():
    """Of a sum of independent terms, total Sobol indices are the terms' shares of the variance."""
    rng = random.Random(0)
    one, two, three = ([rng.random() for _ in range(400)] for _ in range(3))
    scores = [
        2 * a + b for a, b in zip(one, two)
    ]  # shares 0.8 and 0.2, of scores nearly so evenly spread as their ranks
    explained, rows = importance_module.importance({"three": three, "two": two, "one": one}, scores)
    assert [row["name"] for row in rows] == ["one", "two", "three"] and explained > 0.9
    assert [row["mean"] for row in rows] == pytest.approx([0.8, 0.2, 0], abs=0.1)


def test_noise_is_called_noise(tmp_path):
    rng = random.Random(2)
    records = [{**record, "status": "completed", "score": rng.random()} for record in made_records(40)]
    assert "do not trust this order" in page_of(tmp_path, records, resamples=8).text


def test_few_trials_have_no_importance(tmp_path):
    page = page_of(tmp_path, made_records(12))
    assert "importance" not in page.plots
    assert "Importance needs 10 completed trials with different values and scores; there are 8." in page.text


def test_an_unused_parameter_gets_no_credit_for_what_made_it_unused():
    rng = random.Random(3)
    thaw = [rng.randrange(2) for _ in range(200)]
    ratio = [rng.random() if thawed else math.nan for thawed in thaw]
    _, rows = importance_module.importance(
        {"ratio": ratio, "thaw": thaw}, [thawed + rng.uniform(0, 0.5) for thawed in thaw]
    )
    assert rows[0]["name"] == "thaw" and rows[1]["mean"] < 0.1


def test_scales_come_from_the_space_else_from_the_values(tmp_path):
    records = [
        {
            "trial_id": str(i),
            "status": "completed",
            "score": i,
            "values": {"a": 10.0**-i, "b": i, "c": i, "d": [0, 1e-4, 1e-2][i], "thaw": t},
        }
        for i, t in enumerate(("stage3_block2", "head", "stage3"))
    ]
    space = {"b": [0, 1, 2], "c": {"min": 0, "max": 2}, "a": {"min": 0.01, "max": 1, "log": True}}
    found = described(records, space)
    assert [(p["name"], p["kind"]) for p in found] == [
        ("b", "linear"), ("c", "linear"), ("a", "log"), ("d", "category"), ("thaw", "category")
    ]  # fmt: skip
    assert found[-1]["choices"] == ["head", "stage3_block2", "stage3"]
    assert {p["name"]: p["kind"] for p in described(records, {})}["a"] == "log"
    _, *axes, score = page_of(tmp_path, records, space=space).plots["parallel"]["data"][0]["dimensions"]
    assert [axis["label"] for axis in axes] == ["b", "c", "a", "d", "thaw"] and score["values"] == [0, 1, 2]
    assert axes[2]["values"] == [0, -1, -2] and axes[2]["ticktext"] == ["0.01", "0.1", "1"]
    assert axes[4]["values"] == [1, 0, 2] and axes[4]["ticktext"] == ["head", "stage3_block2", "stage3"]


def test_a_cell_of_the_map_has_the_median_of_its_trials(tmp_path):
    records = made_records(200)
    trace = page_of(tmp_path, records).plots["map"]["data"][0]
    members = [(thaw, cell, z) for thaw, *row in zip(THAWS, trace["customdata"], trace["z"]) for cell, z in zip(*row)]
    for thaw, cell, z in members:
        assert {records[int(trial)]["values"]["thaw"] for trial in cell} <= {thaw}
        assert z == (statistics.median(records[int(trial)]["score"] for trial in cell) if cell else None)
    assert sorted(trial for _, cell, _ in members for trial in cell) == [
        record["trial_id"] for record in records if record["status"] == "completed"
    ]


def test_curves_are_the_histories(tmp_path):
    records = made_records(10)
    figure = page_of(tmp_path, records).plots["curves"]
    completed = sorted((r for r in records if r["status"] == "completed"), key=lambda r: r["score"])
    assert [view["id"] for view in figure["views"]] == [record["trial_id"] for record in completed]
    for view, record in zip(figure["views"], completed):
        names = ("loss", "val_loss", "accuracy", "val_accuracy")
        assert view["data"]["y"] == [[row[name] for row in record["history"]] for name in names]
        assert view["data"]["x"][0] == [1, 2, 3, 4]
        assert [line["x0"] for line in view["layout"]["shapes"]] == [2.5]  # stage4 begins with the third epoch
    shown = [figure["data"][i]["y"] for i in figure["views"][0]["traces"]]
    assert shown == figure["views"][0]["data"]["y"]


@pytest.mark.parametrize(
    "records, objective, sentence",
    [
        ([], "val_loss", "`objective` must be a name and one of"),
        ([], ("val_loss", "down"), "`objective` must be a name and one of"),
        ([{"status": "failed"}], ("val_loss", "min"), "A record needs a `trial_id`"),
        ([{"trial_id": "0", "status": "lost"}], ("val_loss", "min"), "A record needs a `trial_id`"),
    ],
)
def test_bad_input_gets_a_sentence_and_no_page(tmp_path, records, objective, sentence):
    with pytest.raises(ValueError, match=sentence):
        search_page(tmp_path / "search.html", records, objective)
    assert not list(tmp_path.iterdir())


def test_without_plotly_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install kresnets\[search\]"):
        search_page(tmp_path / "search.html", [])


# In a browser -------------------------------------------------------------------------------------------------------


def opened(browser, path, width=1200):
    """Open a page, wait until all is drawn, and check that the console is silent and nothing was asked for."""
    open_page(browser, path.as_uri(), "drawn", width)
    # Of WebGL without a graphics card Chromium says that it is slow.
    assert [line for line in complaints(browser) if "GPU stall due to ReadPixels" not in line["message"]] == []
    assert [url for url in asked(browser) if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


def visible_rows(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#trials tbody tr')].filter(row => row.offsetHeight)"
        ".map(row => row.dataset.trial)"
    )


def mouse(browser, selector, number):
    """Return a mouse that stands on the n-th element (in its plot's own order) of a selector."""
    from selenium.webdriver import ActionChains

    element = browser.find_elements("css selector", selector)[number]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    chain = ActionChains(browser, duration=50)
    return chain.move_to_element_with_offset(element, 3, 0).move_to_element(element)  # Plotly hears only what moves


@pytest.mark.browser
@pytest.mark.parametrize("number", (1, 500))
@pytest.mark.parametrize("width", (1200, 390))
def test_a_page_renders_and_fits(browser, tmp_path, number, width):
    page_of(tmp_path, made_records(number), command="kresnets search " + "--option value " * 20, title="A search")
    opened(browser, tmp_path / "search.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.plot')]"
        ".map(p => [p.id, !!p.querySelector('.main-svg .trace, .hm, .parcoords .y-axis')])"
    )
    names = ["history", "curves"]
    if number == 500:
        names = ["history", "parallel", *(f"slice-{i}" for i in range(5)), "importance", "map", "curves"]
    assert drawn == [[name, True] for name in names]
    assert len(visible_rows(browser)) == number
    titles = browser.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert not any("hare" in title or "loud" in title for title in titles)  # Plotly's own buttons send the chart away


@pytest.mark.browser
@pytest.mark.parametrize("widths", [(1600, 380), (380, 1600, 760)], ids=str)
def test_nothing_overlaps_after_the_window_was_resized(browser, tmp_path, widths):
    page_of(tmp_path, made_records(60), command="kresnets search", title="A search")
    opened(browser, tmp_path / "search.html", widths[0])
    for width in widths[1:]:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
        )
        time.sleep(1.5)  # Plotly draws anew a moment later
        over = browser.execute_script(
            """const boxes = [...document.querySelectorAll('.plot, section > p, section > h2, .trials')]
                 .map(e => [e.id || e.tagName, e, e.getBoundingClientRect()]).filter(([, , box]) => box.height);
               const found = [];
               for (const [name, one, a] of boxes) for (const [other, two, b] of boxes)
                 if (one !== two && !one.contains(two) && !two.contains(one)
                     && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
                     && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2) found.push(name + ' ' + other);
               for (const plot of document.querySelectorAll('.plot')) {
                 const drawn = plot.querySelector('.main-svg');
                 if (drawn && Math.abs(drawn.getBoundingClientRect().height - plot.getBoundingClientRect().height) > 3)
                   found.push('height of ' + plot.id);
               }
               if (document.documentElement.scrollWidth > innerWidth) found.push('wider than the window');
               return found"""
        )
        assert over == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
@pytest.mark.parametrize("number", (1, 500))
def test_hovering_shows_a_trial_and_a_click_filters(browser, tmp_path, number):
    records = made_records(number)
    page_of(tmp_path, records)
    opened(browser, tmp_path / "search.html")
    mouse(browser, "#history .point", 0).perform()
    hover = eventually(
        lambda: "\n".join(
            each.text for each in browser.find_elements("css selector", "#history .hoverlayer .hovertext")
        )
    )
    identity = next(record["trial_id"] for record in records if f"trial {record['trial_id']}" in hover)
    assert (
        f"{records[int(identity)]['score']:.4g}" in hover
        and f"thaw: {records[int(identity)]['values']['thaw']}" in hover
    )
    mouse(browser, "#history .point", 0).click().perform()
    assert eventually(lambda: visible_rows(browser) == [identity])
    assert eventually(lambda: f"trial {identity}" in browser.find_element("id", "trial").text)
    browser.find_element("id", "all").click()
    assert eventually(lambda: len(visible_rows(browser)) == number)
    assert not browser.find_element("id", "all").is_displayed()


@pytest.mark.browser
def test_rows_keys_and_headings(browser, tmp_path):
    from selenium.webdriver import Keys

    records = made_records(30)
    page_of(tmp_path, records)
    opened(browser, tmp_path / "search.html")
    browser.find_element("css selector", "tr[data-trial='004'] button").send_keys(Keys.ENTER)
    assert visible_rows(browser) == ["004"] and "The loss became NaN." in browser.find_element("id", "trial").text
    browser.refresh()  # as the page of a running search does by itself
    assert eventually(lambda: visible_rows(browser) == ["004"])
    browser.find_element("css selector", "tr[data-trial='004'] button").click()
    assert len(visible_rows(browser)) == 30
    browser.find_element("css selector", "tr[data-trial='002'] button").click()
    points = "return document.getElementById('curves').data[1].y"
    assert eventually(lambda: browser.execute_script(points) == [row["loss"] for row in records[2]["history"]])
    browser.find_element("tag name", "body").send_keys(Keys.ESCAPE)
    assert len(visible_rows(browser)) == 30
    heading = browser.find_elements("css selector", "#trials th button")[0]
    heading.click()
    assert visible_rows(browser) == [record["trial_id"] for record in records]
    heading.click()
    assert visible_rows(browser) == [record["trial_id"] for record in reversed(records)]
    browser.find_elements("css selector", "#trials th button")[2].click()
    ranked = sorted((r for r in records if r["score"] is not None), key=lambda record: record["score"])
    assert visible_rows(browser)[: len(ranked)] == [record["trial_id"] for record in ranked]


@pytest.mark.browser
def test_a_brush_on_an_axis_keeps_the_trials_through_it(browser, tmp_path):
    from selenium.webdriver import ActionChains

    records = made_records(40)
    page_of(tmp_path, records)
    opened(browser, tmp_path / "search.html")
    axis = browser.find_elements("css selector", "#parallel .axis-brush .background")[1]  # thaw, the head lowest
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", axis)
    low = axis.rect["height"] // 2
    drag = ActionChains(browser).move_to_element_with_offset(axis, 0, low - 30).click_and_hold()
    drag.move_by_offset(0, 10).move_by_offset(0, 15).release().perform()
    heads = [r["trial_id"] for r in records if r["status"] == "completed" and r["values"]["thaw"] == "head"]
    assert eventually(lambda: sorted(visible_rows(browser)) == heads)


@pytest.mark.browser
def test_colours_follow_the_system(browser, tmp_path):
    page_of(tmp_path, made_records(3))
    opened(browser, tmp_path / "search.html")
    colour = "return getComputedStyle(document.querySelector('#history .xtick text')).fill"
    light = browser.execute_script(colour)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert eventually(lambda: browser.execute_script(colour) != light)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert eventually(lambda: browser.execute_script(colour) == light)


@pytest.mark.browser
def test_a_click_on_the_map_shows_a_cells_trials(browser, tmp_path):
    page_of(tmp_path, made_records(200))
    opened(browser, tmp_path / "search.html")
    cells = browser.execute_script("return document.getElementById('map').data[0].customdata")
    y, x = max(
        ((y, x) for y, row in enumerate(cells) for x in range(len(row))), key=lambda at: len(cells[at[0]][at[1]])
    )
    plot = browser.find_element("css selector", "#map .nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    from selenium.webdriver import ActionChains

    across = int(((x + 0.5) / len(cells[0]) - 0.5) * plot.rect["width"])
    up = int(((y + 0.5) / len(cells) - 0.5) * plot.rect["height"])
    ActionChains(browser).move_to_element_with_offset(plot, across + 9, -up + 9).click().perform()
    assert eventually(lambda: sorted(visible_rows(browser)) == sorted(cells[y][x]))


@pytest.mark.browser
def test_no_script_of_the_data_runs(browser, tmp_path):
    """Each text goes through Plotly's own markup too, on axes and in what hovering shows."""
    records = [
        {**record, "trial_id": f"{i} {EVIL}", "reason": EVIL, "status": "completed", "score": i / 20}
        for i, record in enumerate(made_records(20))
    ]
    for i, record in enumerate(records):
        record["values"] = {"thaw": f"{EVIL} {i % 3}", EVIL: i, "learning_rate": 10.0 ** -(i % 4)}
        record["history"] = [{**row, "stage": f"{EVIL}{row['stage']}"} for row in record["history"]]
    winner = {"winner": METRICS, "sentence": EVIL}
    page_of(tmp_path, records, objective=(EVIL, "min"), title=EVIL, command=EVIL, notes=[EVIL], winner=winner)
    opened(browser, tmp_path / "search.html")
    mouse(browser, "#history .point", 3).perform()
    assert eventually(lambda: "<a href=" in browser.find_element("css selector", "#history .hoverlayer").text)
    mouse(browser, "#history .point", 3).click().perform()
    assert eventually(lambda: len(visible_rows(browser)) == 1)
    assert browser.execute_script("return window.hit") is None
    assert browser.execute_script("return document.querySelectorAll('.plot img, .plot svg a').length") == 0
