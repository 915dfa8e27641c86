"""The page as a browser shows it: narrow and wide, light and dark, asking nothing of the network."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hw4.report import claim, exercises, strides
from hw4.report.page import Report, load_report
from tests.test_claim import limits, made_up
from tests.test_report import records
from tests.test_strides import whole

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTHS = (360, 1280)

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium leaves its pipes to the garbage collector
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with a new profile, which keeps its console's messages."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["made up", "reference"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part that records alone can make, and the committed one."""
    folder = tmp_path_factory.mktemp("page")
    if request.param == "reference":
        return load_report(REFERENCE).write(folder)
    decided = claim.entries(*made_up(limits(0.16, 0.381)))
    return Report([*exercises.entries(records()), *strides.entries(whole()), *decided]).write(folder)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest, browser: Any) -> str:
    """The reader's preference."""
    feature = {"name": "prefers-color-scheme", "value": request.param}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    return str(request.param)


def show(browser: Any, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_there_and_fits(browser: Any, page: Path, width: int) -> None:
    show(browser, page, width)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    figures = (
        "return [...document.querySelectorAll('figure [role=img]')].map(f => [f.ariaLabel.length, f.clientHeight])"
    )
    drawn = browser.execute_script(figures)
    assert len(drawn) >= 3
    assert all(words >= 40 and height > 100 for words, height in drawn)
    lost = "return [...document.querySelectorAll('use')].filter(u => !document.querySelector(u.href.baseVal)).length"
    assert browser.execute_script(lost) == 0, "a mark that is drawn nowhere"
    twice = "const ids = [...document.querySelectorAll('[id]')].map(e => e.id); return ids.length - new Set(ids).size"
    assert browser.execute_script(twice) == 0
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "the page is too wide"
    wide = """return [...document.querySelectorAll('main *:not(.wide *)')]
              .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML)"""
    assert browser.execute_script(wide) == []
    lost = "return [...document.querySelectorAll('a')].filter(a => !document.querySelector(a.hash)).map(a => a.hash)"
    assert browser.execute_script(lost) == []
    contents = "return [...document.querySelectorAll('nav a')].map(a => a.textContent)"
    titles = (
        "return [...document.querySelectorAll('section > h2')].map(h => h.textContent).filter(t => t != 'In short')"
    )
    assert browser.execute_script(contents) == browser.execute_script(titles)
    assert page.stat().st_size < 1_000_000
    loaded = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(loaded) == [], "the page asks for something outside itself"


def test_axe_finds_no_fault(browser: Any, page: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python.selenium")
    show(browser, page, WIDTHS[1])
    found = axe.Axe().run(
        browser, context={"exclude": [[".panels svg"]]}
    )  # what a picture is made of; axe takes minutes
    faults = [(fault["impact"], fault["id"], fault["nodes"][0]["html"][:120]) for fault in found["violations"]]
    assert faults == [], scheme
    assert len(found["passes"]) > 10


def test_on_a_phone_figures_break_into_panels_and_what_goes_on_says_so(browser: Any, page: Path) -> None:
    show(browser, page, WIDTHS[0])
    first = "return [...document.querySelector('.panels').children].map(p => p.getBoundingClientRect().right)"
    assert max(browser.execute_script(first)) <= WIDTHS[0], "a panel of the exercises' is cut"
    moved = browser.execute_script("""
        const wide = [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1)
        return wide.map(e => {
            e.scrollLeft = e.scrollWidth
            const cell = e.querySelector('tbody th')
            const stays = !cell || Math.abs(cell.getBoundingClientRect().x - e.getBoundingClientRect().x) < 2
            return stays && getComputedStyle(e).backgroundAttachment.includes('scroll')
        })""")
    assert moved, "no table is wider than a phone"
    assert all(moved), "a first column went away, or no shadow says that there is more"


def test_a_tap_beside_a_mark_says_its_seed_and_value(browser: Any, page: Path) -> None:
    show(browser, page, WIDTHS[0])
    tap = """
        const mark = [...document.querySelectorAll('use')].find(u => u.textContent.includes('seed'))
        const box = mark.getBoundingClientRect(), clientX = box.x + box.width / 2 + arguments[0]
        mark.dispatchEvent(new MouseEvent('click', {clientX, clientY: box.y + box.height / 2, bubbles: true}))
        return document.querySelector('output').textContent"""
    assert re.search(r", seed \d+: [\d.e+-]+ at [\d.e+-]+$", browser.execute_script(tap, 1))
    assert browser.execute_script(tap, 5000) == "", "far from every mark"


def test_it_prints_without_cutting(browser: Any, page: Path) -> None:
    show(browser, page, 718)  # A4 between margins of 1 cm
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    assert browser.execute_script("return getComputedStyle(document.documentElement).colorScheme") == "light"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 718, "cut at the paper's edge"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert len(printed["data"]) > 10_000
