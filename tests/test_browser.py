"""The page of an experiment in a browser: nothing is loaded, text is readable, tables are sorted, and untrusted names do nothing.

Needs Chromium, its driver and selenium; skipped where one is absent.
"""

import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from report_builder import make_experiment, make_row

from tl_keras import report
from tl_keras.report import document, style, web_page
from tl_keras.results.inspection_record import Inspection, SuspectedLabel, write_inspection

webdriver = pytest.importorskip("selenium.webdriver")
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
HOSTILE = "<script>document.title = 'changed'</script><img src=x onerror=\"document.title='changed'\">' onload='x\" & </table>"
PHOTO = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
# Cells of a column in the order of the page, and in rising order.
COLUMNS = {
    "number": (["97.50 ± 1.2", "–", "(8.20)", "83.42 [82.68, 84.14]", "< 0.0001"], [4, 2, 3, 0, 1]),
    "count": (["57,044,810", "9 of 10", "+1,234", "—", "-2.58"], [4, 1, 2, 0, 3]),
    "time": (["6 min 7 s", "0.4 s", "3 h 2 min", "43 s", "–"], [1, 3, 0, 2, 4]),
    "text": (["class 10", "class 9", "Äpfel", "birds (3)", "12 cats"], [4, 2, 3, 1, 0]),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three rows of which one has a hostile name, with all findings of an inspection."""
    directory = tmp_path_factory.mktemp("browser")
    names = [HOSTILE, "a class whose name is as long as a sentence on a narrow telephone", *(f"class{i}" for i in range(6))]
    experiment = SimpleNamespace(name="part_a", title=HOSTILE, question=HOSTILE)
    rows = [make_row(HOSTILE, None, HOSTILE, fallbacks=(HOSTILE,)), make_row("b", None, "head"), make_row("c", None, "full")]
    settings = {"class_names": names, "notes": [HOSTILE], "dataset": HOSTILE, "embedded": True}
    results = make_experiment(directory, rows, experiment=experiment, num_test=300, reference="head", **settings)
    suspect = SuspectedLabel(HOSTILE, HOSTILE, "cat", 0.9, PHOTO)
    found = Inspection((suspect,) * 3, ((HOSTILE, "b.png", 0.9),), ((HOSTILE, "no image"),), ((HOSTILE, "c.png"),), (HOSTILE,))
    write_inspection(results.runs[0].path, found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 60)
        patch.setattr(style, "PHOTOGRAPH_DPI", 60)
        report.write_report(results, directory)
    return directory / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, env=dict(os.environ)))
        yield driver
        driver.quit()


@pytest.fixture
def browser(chromium, page):
    """The browser with the page, in light colours and a width of 1200 pixels, and with empty logs."""
    for log in ("browser", "performance"):
        chromium.get_log(log)
    show(chromium, "light", 1200)
    chromium.get(page.as_uri())
    return chromium


def show(browser, scheme, width):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_the_page_loads_nothing_and_reports_no_error(browser, page):
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in requests and {url for url in requests if not url.startswith("data:")} == {page.as_uri()}
    assert browser.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0


def test_hostile_names_are_text(browser):
    shown = " ".join(HOSTILE.split())
    assert browser.title == shown and browser.execute_script("return document.querySelector('h1').textContent") == shown
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.execute_script("return document.querySelectorAll('img:not([src^=\"data:\"]), [onload], [onerror]').length") == 0
    assert shown in browser.execute_script("return document.querySelector('tbody th').textContent")


def test_every_image_is_shown_and_has_an_alternative_text(browser):
    images = browser.execute_script("return [...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight])")
    assert len(images) > 10 and all(alt and width > 0 and height > 0 for alt, width, height in images)


# The contrast of each text with the background of the element behind it (WCAG 2.2, 1.4.3), where it is below 4.5.
LOW_CONTRAST = """
const parse = (text) => { const parts = text.match(/[\\d.]+/g).map(Number); return parts.length < 4 ? [...parts, 1] : parts; };
const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
  return null; };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
let texts = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, shown = walker.currentNode.textContent.trim();
  if (!shown || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
  texts += 1;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push([shown, ratio]);
}
return [texts, found, getComputedStyle(document.body).backgroundColor];
"""


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_all_text_has_contrast(browser, scheme, is_dark):
    show(browser, scheme, 1200)
    texts, low, background = browser.execute_script(LOW_CONTRAST)
    assert texts > 200 and low == [] and (int(re.findall(r"\d+", background)[0]) < 80) == is_dark
    plots = browser.execute_script("return [...document.querySelectorAll('.plot img')].map(i => getComputedStyle(i).backgroundColor)")
    assert plots and set(plots) == {"rgb(255, 255, 255)"}  # dark lines stay readable


def test_on_a_telephone_only_tables_scroll_sideways(browser):
    show(browser, "light", 400)
    width, needed = browser.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollWidth]")
    assert needed <= width <= 400
    outside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide'))"
    wide = f"{outside}.filter(e => e.getBoundingClientRect().right > {width} + 1)"
    assert browser.execute_script(f"return {wide}.map(e => e.outerHTML.slice(0, 80))") == []
    assert browser.execute_script("return [...document.querySelectorAll('.wide')].some(e => e.scrollWidth > e.clientWidth)")


def test_links_of_the_contents_lead_to_headings(browser):
    links = browser.execute_script("return [...document.querySelectorAll('nav a')].map(a => [a.textContent, a.hash])")
    headings = browser.execute_script("return [...document.querySelectorAll('h2')].map(h => [h.textContent, '#' + h.id])")
    assert links == headings and len(links) > 5


def test_headings_and_rows_of_tables_have_their_scope(browser):
    assert browser.execute_script("return document.querySelectorAll('th:not([scope])').length") == 0
    labels = "[...document.querySelectorAll('table')].map(t => document.getElementById(t.getAttribute('aria-labelledby'))?.tagName)"
    assert set(browser.execute_script(f"return {labels}")) <= {"H1", "H2", "H3"}


@pytest.fixture(scope="module")
def sorting(tmp_path_factory):
    """A page with one table that has `COLUMNS` and the number of the row."""
    directory = tmp_path_factory.mktemp("sorting")
    rows = [[str(index), *cells] for index, cells in enumerate(zip(*(cells for cells, _ in COLUMNS.values()), strict=True))]
    blocks = [document.Heading(1, "Sorting"), document.Table(["row", *COLUMNS], rows), document.Table(["alone"], [["a"]])]
    (directory / "page.html").write_text(web_page.to_html(blocks, directory, refresh_seconds=600), encoding="utf-8")
    return directory / "page.html"


ORDER = "return [...document.querySelectorAll('tbody')[0].rows].map(row => Number(row.cells[0].textContent))"
SORTED = "return [...document.querySelectorAll('th[aria-sort]')].map(h => [h.textContent, h.getAttribute('aria-sort')])"


@pytest.mark.parametrize("column", COLUMNS)
def test_a_click_sorts_by_value_then_falling_then_as_before(browser, sorting, column):
    browser.get(sorting.as_uri())
    rising = COLUMNS[column][1]
    filled = [row for row in rising if COLUMNS[column][0][row] not in "–—"]
    empty = rising[len(filled) :]
    button = browser.find_element("xpath", f"//th/button[text()='{column}']")
    for expected, state in [([*filled, *empty], "ascending"), ([*filled[::-1], *empty], "descending")]:
        button.click()
        assert browser.execute_script(ORDER) == expected and browser.execute_script(SORTED) == [[column, state]]
    button.click()
    assert browser.execute_script(ORDER) == [0, 1, 2, 3, 4] and browser.execute_script(SORTED) == []


def test_the_keyboard_sorts_and_its_focus_is_visible(browser, sorting):
    browser.get(sorting.as_uri())
    body = browser.find_element("tag name", "body")
    body.send_keys(keys.TAB)
    browser.switch_to.active_element.send_keys(keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.tag_name == "button" and focused.text == "number"
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    focused.send_keys(keys.ENTER)
    assert browser.execute_script(ORDER) == COLUMNS["number"][1] and browser.execute_script(SORTED) == [["number", "ascending"]]
    browser.find_element("xpath", "//th/button[text()='text']").send_keys(keys.SPACE)
    assert browser.execute_script(ORDER) == COLUMNS["text"][1] and browser.execute_script(SORTED) == [["text", "ascending"]]


def test_a_table_of_one_row_has_no_buttons_and_the_page_reloads_when_asked(browser, sorting):
    browser.get(sorting.as_uri())
    assert browser.execute_script("return [...document.querySelectorAll('table')].map(t => t.querySelectorAll('button').length)") == [5, 0]
    assert browser.execute_script("return document.querySelector('meta[http-equiv=refresh]').content") == "600"


def test_another_script_or_style_is_refused(browser, page):
    """The policy allows what it names, and no element or attribute that text could smuggle in."""
    browser.execute_script("document.head.insertAdjacentHTML('beforeend', '<style>h1 {color: rgb(1, 2, 3)}</style>')")
    browser.execute_script("const s = document.createElement('script'); s.text = 'document.title = 1'; document.head.append(s)")
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=http://localhost:9/a.png>')")
    assert browser.title != "1" and browser.execute_script("return getComputedStyle(document.querySelector('h1')).color") != "rgb(1, 2, 3)"
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert all(any(kind in message for message in messages) for kind in ("style-src", "script-src", "img-src"))
