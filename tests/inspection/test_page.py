"""The page in headless Chromium: a thousand cases, keys, what is kept, what comes out and goes in."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import Stores
from PIL import Image

from xr2ct.errors import UserError
from xr2ct.inspection.page import write_page
from xr2ct.inspection.thumbnails import TILE, strip
from xr2ct.store import Store, layout
from xr2ct.store.exclude import install_exclude, read_exclude

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

CASES = 1000
EXCLUDED = "case-0500"
HOSTILE = "case <img src=x onerror=window.owned=1> & \"one\", 'two'"
HOSTILE_TEXT = "</script><script>window.owned=1</script>"
UPSIDE_DOWN = "case-0700"


@pytest.fixture(scope="module")
def store(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand cases: one upside down, one excluded, one whose chunk is gone, one with a hostile name."""
    chests = [stores.chest(i, 16) for i in range(50)]
    volumes = {f"case-{i:04d}": chests[i % 50] for i in range(CASES)}
    volumes[UPSIDE_DOWN] = np.ascontiguousarray(volumes[UPSIDE_DOWN][::-1])
    volumes = {HOSTILE if case == "case-0600" else case: hu for case, hu in volumes.items()}
    about = {
        "case-0000": {"kernel": HOSTILE_TEXT, "thickness_mm": 2.5},
        HOSTILE: {"kernel": "B30f", "thickness_mm": 1.25},
    }
    path = tmp_path_factory.mktemp("stores") / "lidc-idri.zarr"
    written = stores.write(path, volumes, about, splits=("train", "train", "val", "test"))
    layout.exclude_file(path).write_text(f'case,reason\n{EXCLUDED},"blurred, twice"\n')
    gone = next(case for case in written.cases if case.id == "case-0123")
    layout.chunk_file(path, "ct/16", gone.row).unlink()
    return path


@pytest.fixture(scope="module")
def page(store: Path) -> Path:
    return write_page(Store.open(store), store.parent / "a page.html", workers=2)


def embedded(page: Path, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1])


def test_most_unusual_first_with_its_reasons_and_pictures(store: Path, page: Path) -> None:
    cases = embedded(page, "data")
    assert len(cases) == CASES
    assert (cases[0]["id"], cases[0]["score"], cases[0]["strip"]) == ("case-0123", None, "")
    assert "its chunk of ct/16 cannot be read" in cases[0]["reasons"][0]
    assert cases[1]["id"] == UPSIDE_DOWN
    assert cases[1]["reasons"][0].startswith("upside down?")
    scores = [case["score"] for case in cases[1:]]
    assert scores == sorted(scores, reverse=True)
    by_id = {case["id"]: case for case in cases}
    assert [by_id[name]["excluded"] for name in (EXCLUDED, UPSIDE_DOWN)] == ["blurred, twice", None]
    assert by_id[HOSTILE]["facts"][:2] == ["B30f", "1.25 mm"]
    assert by_id["case-0002"]["split"] == "val"
    assert embedded(page, "about")["tiles"] == ["axial", "coronal", "sagittal", "0°", "90°"]


def test_a_strip_shows_planes_and_views_as_they_hang(store: Path) -> None:
    opened = Store.open(store)
    jpeg = strip(opened, opened.cases[0], "x2ct")
    picture = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert picture.shape == (TILE, 5 * TILE)
    axial, coronal, sagittal, frontal, _ = np.split(picture.astype(float), 5, axis=1)
    middle = slice(TILE // 4, -TILE // 4)
    assert axial[TILE // 2 :, middle].mean() > axial[: TILE // 2, middle].mean(), "the spine is below"
    assert coronal[:10].mean() < coronal[-10:].mean(), "the neck is up"
    assert sagittal[:, TILE // 2 :].mean() > sagittal[:, : TILE // 2].mean(), "the front is on the left"
    assert frontal[:10].mean() < frontal[-10:].mean()
    assert len(base64.b64encode(jpeg)) < 15_000


def test_nothing_is_fetched_and_no_text_becomes_markup(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?://|<link|<script[^>]+src|@import", text)
    assert HOSTILE_TEXT not in text
    assert HOSTILE not in text


def test_wrong_requests(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder; expected the name of an HTML file"):
        write_page(Store.open(store), tmp_path)
    with pytest.raises(UserError, match="no X-rays of geometry 'x2tc': did you mean 'x2ct'"):
        write_page(Store.open(store), tmp_path / "page.html", geometry="x2tc")


class Browser:
    """Headless Chromium on the page."""

    def __init__(self, chrome: Chrome, page: Path, downloads: Path) -> None:
        self.chrome, self.page, self.downloads = chrome, page, downloads

    def open(self) -> None:
        self.chrome.get(self.page.as_uri())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.chrome.switch_to.active_element.send_keys(key)

    def find(self, css: str) -> WebElement:
        return self.chrome.find_element("css selector", css)

    def texts(self, css: str) -> list[str]:
        return [found.text for found in self.chrome.find_elements("css selector", css)]

    def text(self, css: str) -> str:
        return self.find(css).text

    def focused(self) -> str:
        """The case that has the focus."""
        return str(
            self.chrome.execute_script("return document.activeElement.closest('article').dataset.case")
        )

    def shown(self) -> list[str]:
        script = "return [...document.querySelectorAll('article')].map((one) => one.dataset.case)"
        return list(self.chrome.execute_script(script))

    def choose(self, css: str, value: str) -> None:
        self.find(f"{css} option[value={value}]").click()

    def export(self) -> Path:
        """What the button writes."""
        file = self.downloads / "exclude.csv"
        file.unlink(missing_ok=True)
        self.find("#export").click()
        self.wait(lambda: file.is_file() and file.stat().st_size > 0)
        return file

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chrome, Path]]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver: apt-get install chromium-driver")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1400,900"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened, downloads
    opened.quit()


@pytest.fixture
def browser(chrome: tuple[Chrome, Path], page: Path) -> Iterator[Browser]:
    """On the page, as somebody sees it who has decided nothing yet."""
    opened, downloads = chrome
    browser = Browser(opened, page, downloads)
    browser.open()
    opened.execute_script("localStorage.clear()")
    browser.open()
    yield browser
    assert opened.get_log("browser") == [], "errors on the page"
    assert opened.execute_script("return window.owned === undefined")


def test_a_page_at_a_time(browser: Browser) -> None:
    assert browser.text("h1") == "lidc-idri: 1000 cases"
    assert browser.text("#counts") == "999 undecided · 0 accepted · 1 rejected"
    assert browser.text("#place") == "page 1 of 42"
    assert len(browser.shown()) == 24
    assert browser.shown()[:2] == ["case-0123", UPSIDE_DOWN]
    assert "upside down?" in browser.text("article:nth-child(2) li")
    tiles = browser.chrome.find_elements("css selector", "article:nth-child(2) .tile")
    assert [tile.get_attribute("aria-label") for tile in tiles] == [
        "axial",
        "coronal",
        "sagittal",
        "0°",
        "90°",
    ]
    browser.press("n", "n")
    assert browser.text("#place") == "page 3 of 42"
    browser.press("p")
    assert browser.text("#place") == "page 2 of 42"
    assert len(browser.chrome.find_elements("css selector", ".tile")) == 24 * 5
    browser.find("#next").click()
    assert browser.text("#place") == "page 3 of 42"


def test_keys_decide_and_a_reload_keeps_it(browser: Browser) -> None:
    first = browser.shown()[:5]
    assert browser.focused() == first[0]
    browser.press("r", "j", "r", "\ue015", "a", "\ue014", "a", "j", "r", "u")  # down, right
    assert browser.focused() == first[4]
    browser.press("k", "\ue013", "\ue012", "k", "k")  # up, left: no further than the first
    assert browser.focused() == first[0]
    browser.open()
    assert browser.text("#counts") == "995 undecided · 2 accepted · 3 rejected"
    browser.press("\ue007", "no chest at all", "\ue007", "j")  # Enter, twice
    assert browser.focused() == first[1]
    browser.open()
    assert browser.text("#counts") == "995 undecided · 2 accepted · 3 rejected"
    styles = [browser.find(f"article:nth-child({i})").get_attribute("class") for i in range(1, 6)]
    assert styles == ["rejected", "rejected", "accepted", "accepted", "undecided"]
    assert browser.find("article:nth-child(1) .note").get_property("value") == "no chest at all"
    assert not browser.find("article:nth-child(3) .note").is_displayed()


def test_moving_goes_over_the_pages_ends(browser: Browser) -> None:
    browser.press(*"j" * 23)
    last = browser.shown()[23]
    assert browser.focused() == last
    browser.press("j")
    assert browser.text("#place") == "page 2 of 42"
    assert browser.focused() == browser.shown()[0]
    browser.press("k")
    assert browser.focused() == last


def test_what_is_exported_is_what_the_store_takes(browser: Browser, store: Path, tmp_path: Path) -> None:
    browser.press("j", "r")
    browser.find("#search").send_keys("onerror")
    assert browser.shown() == [HOSTILE]
    assert browser.text("article h2").endswith(HOSTILE)
    browser.press("\ue007", "r", "\ue007", 'not "a" chest, é', "\ue00c")  # Enter, Escape
    file = browser.export()
    reasons = read_exclude(file)
    assert list(reasons) == sorted(reasons) == [HOSTILE, EXCLUDED, UPSIDE_DOWN]
    assert reasons[HOSTILE] == 'not "a" chest, é'
    assert reasons[EXCLUDED] == "blurred, twice"
    assert reasons[UPSIDE_DOWN].startswith("upside down?: matches the mean chest better")
    assert "3 rejected cases" in browser.text("#status")
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    install_exclude(copy, file)
    left = Store.open(copy)
    assert len(left.cases) == CASES - 3
    assert left.excluded == reasons


def test_an_earlier_list_comes_in_again(browser: Browser, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.csv"
    earlier.write_text('\ufeffcase,reason\r\ncase-0007,"a ""quoted"", reason"\r\ncase-0008,\r\nnobody,x\r\n')
    browser.find("#file").send_keys(str(earlier))
    browser.wait(lambda: browser.text("#status") != "")
    assert browser.text("#status") == "earlier.csv: 2 cases rejected. Not in this store: nobody"
    assert read_exclude(browser.export()) == {
        "case-0007": 'a "quoted", reason',
        "case-0008": "rejected by eye",
        EXCLUDED: "blurred, twice",
    }
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("patient,split\nA,train\n")
    browser.find("#file").send_keys(str(wrong))
    browser.wait(lambda: "expected" in browser.text("#status"))
    assert browser.text("#counts") == "997 undecided · 0 accepted · 3 rejected"


def test_filters_and_sorting(browser: Browser) -> None:
    browser.press("A")
    assert browser.text("#counts") == "975 undecided · 24 accepted · 1 rejected"
    browser.choose("#filter", "undecided")
    assert browser.text("#place") == "page 1 of 41"
    assert set(browser.texts("article [aria-pressed=true]")) == set()
    browser.choose("#filter", "rejected")
    assert browser.shown() == [EXCLUDED]
    browser.choose("#filter", "accepted")
    assert len(browser.shown()) == 24
    browser.choose("#filter", "val")
    assert browser.text("#place") == "page 1 of 11"
    browser.choose("#sort", "name")
    assert browser.shown()[:3] == ["case-0002", "case-0006", "case-0010"]
    browser.find("#search").send_keys("nobody")
    assert browser.text("#cases") == "No case to show."
    browser.press("\ue007", "j", "a", "n")
    assert browser.text("#place") == "page 1 of 1"


def test_buttons_and_help(browser: Browser) -> None:
    browser.find("article:nth-child(3) .reject").click()
    assert browser.focused() == browser.shown()[2]
    browser.find("article:nth-child(3) .reject").click()
    assert browser.text("#counts") == "999 undecided · 0 accepted · 1 rejected"
    browser.press("?")
    assert browser.find("#keys").is_displayed()
    browser.press("r", "\ue00c")
    assert not browser.find("#keys").is_displayed()
    assert browser.text("#counts") == "999 undecided · 0 accepted · 1 rejected"
    browser.press("z")
    assert browser.find("body").get_attribute("class") == "large"
    for width in (1400, 500):
        browser.chrome.set_window_size(width, 900)
        wide = browser.chrome.execute_script(
            "return document.documentElement.scrollWidth <= window.innerWidth"
        )
        assert wide, "the page scrolls sideways"
    browser.chrome.set_window_size(1400, 900)
