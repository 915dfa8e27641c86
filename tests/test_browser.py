"""The page as a browser shows it: narrow and wide, light and dark, asking nothing of the network."""

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
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
    assert browser.execute_script(broken) == []
    assert browser.execute_script("return document.images.length") >= 3
    assert browser.execute_script("return [...document.images].filter(i => i.alt.length < 40).length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "the page is too wide"
    wide = """return [...document.querySelectorAll('main *:not(.wide *)')]
              .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML)"""
    assert browser.execute_script(wide) == []
    lost = "return [...document.querySelectorAll('a')].filter(a => !document.querySelector(a.hash)).map(a => a.hash)"
    assert browser.execute_script(lost) == []
    loaded = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(loaded) == [], "the page asks for something outside itself"


def test_axe_finds_no_fault(browser: Any, page: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python.selenium")
    show(browser, page, WIDTHS[1])
    found = axe.Axe().run(browser)
    faults = [(fault["impact"], fault["id"], fault["nodes"][0]["html"][:120]) for fault in found["violations"]]
    assert faults == [], scheme
    assert len(found["passes"]) > 10


def test_it_prints_without_cutting(browser: Any, page: Path) -> None:
    show(browser, page, WIDTHS[1])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(printed["data"]) > 10_000
