"""The built pages in a real browser, as a reader finds them.

Each page is served from this machine's loopback and opened in headless Chromium,
whose own log says what it asked for and what it complained of.
"""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
import yaml
from missing import missing
from nbconvert import HTMLExporter
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from pcbook.show.panels import PHONE

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import notebooks

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
DOCUMENTS = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [d for d in DOCUMENTS if (ROOT / f"{d}.ipynb").exists()]

each_chapter = pytest.mark.parametrize("document", CHAPTERS)

QUIET = [
    "--headless",
    "--no-sandbox",  # Chromium has no sandbox for root, which CI is
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
]


@each_chapter
def test_no_figure_is_cut_off_at_its_edge(pages, document):
    page = (pages / f"{document}.html").read_text(encoding="utf-8")
    given = re.findall(r'<script type="application/json">(.*?)</script>', page)
    frames = {image for data in given for image in json.loads(data)["images"]}
    frames |= set(re.findall(r"data:image/webp;base64,([\w+/=]+)", page))
    assert frames
    for frame in frames:
        ink = np.asarray(Image.open(io.BytesIO(base64.b64decode(frame))).convert("RGBA"))[..., 3]
        assert not any(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def address(pages):
    """The built book, served to this machine alone."""
    handler = functools.partial(Silent, directory=pages)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def started():
    """A new Chromium, or word that there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        missing("a browser", "install Chromium and its driver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in QUIET:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture(scope="module")
def browser():
    browser = started()
    browser.set_script_timeout(120)
    yield browser
    browser.quit()


def wait(browser, condition, seconds=120):
    return WebDriverWait(browser, seconds).until(lambda _: condition())


def seen(browser, *, dark=False, width=1280):
    """See the page in a light or dark theme, on a screen of this width."""
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
    screen = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


class Page(NamedTuple):
    """A page that is open, what it asked for, and what it complained of."""

    document: str
    url: str
    asked: set[str]
    complaints: list


@pytest.fixture(scope="module", params=DOCUMENTS)
def page(request, browser, address):
    """A page, opened once for all that is tested on it, with its mathematics and its controls."""
    url = f"{address}{request.param}.html"
    seen(browser)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages said
    browser.get(url)
    wait(browser, lambda: not all_of(browser, ".pcbook-explore:not([data-live]):has(script)"))
    wait(browser, lambda: len(all_of(browser, "mjx-container")) >= len(all_of(browser, ".math")))
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.execute_script((ROOT / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    return Page(request.param, url, asked, complaints)


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def test_a_page_asks_nobody_else_and_complains_of_nothing(page, address):
    assert not [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert page.url in page.asked
    assert not page.complaints


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_violation_on_the_page(browser, page, dark):
    seen(browser, dark=dark)
    still = "document.head.append(Object.assign(document.createElement('style'), arguments[0]))"
    browser.execute_script(still, {"textContent": "* {transition: none !important}"})
    # The theme's own switch is left out: its label stands beside an icon that it renames.
    found = browser.execute_async_script(
        "const done = arguments[0], theirs = [['.theme-switch-button']];"
        "axe.run({include: [['html']], exclude: theirs}).then(r => done(r.violations))"
    )
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious


@pytest.mark.parametrize("width", [390, 320])
def test_a_page_fits_on_a_phone(browser, page, width):
    seen(browser, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cut = """return [...document.querySelectorAll(".pcbook-controls *")]
        .filter(word => getComputedStyle(word).display != "inline")
        .filter(word => word.scrollWidth > word.clientWidth + 1)
        .map(word => word.textContent)"""
    assert not browser.execute_script(cut)
    if width == 390:
        widths = """return [...document.querySelectorAll(".pcbook-figure")]
            .map(image => [image.clientWidth, Number(image.getAttribute("width"))])"""
        for shown_width, drawn_width in browser.execute_script(widths):
            assert shown_width >= min(PHONE, drawn_width) - 1


def test_handles_and_buttons_are_large_enough_to_hit(browser, page):
    seen(browser, width=390)
    sizes = """return [...document.querySelectorAll(
        ".pcbook-controls :is(input[type=range], label, select)")]
        .map(control => control.getBoundingClientRect().height)"""
    assert all(height >= 24 for height in browser.execute_script(sizes))


def test_figures_lie_on_a_black_card_when_the_page_is_dark(browser, page):
    seen(browser, dark=True)
    styles = """return [...document.querySelectorAll(".pcbook-figure")]
        .map(image => [getComputedStyle(image).backgroundColor, getComputedStyle(image).filter])"""
    assert all(style == ["rgb(0, 0, 0)", "none"] for style in browser.execute_script(styles))


def test_formulas_are_no_stops_of_the_tab_key(browser, page):
    assert not all_of(browser, "mjx-container[tabindex='0']")


def test_every_control_changes_the_picture_from_the_keyboard(browser, page):
    seen(browser)
    for figure in all_of(browser, ".pcbook-explore[data-live]"):
        for control in figure.find_elements(By.CSS_SELECTOR, ".pcbook-controls > div"):
            handle = control.find_element(By.CSS_SELECTOR, "input, select")
            if handle.get_attribute("type") == "radio":
                chosen = control.find_element(By.CSS_SELECTOR, "input:checked")
                away, back = Keys.ARROW_RIGHT, Keys.ARROW_LEFT
            else:
                chosen, away, back = handle, Keys.HOME, Keys.END
            named = control if chosen is not handle else handle
            assert named.get_attribute("aria-label") or control.get_attribute("aria-label")
            before = shown(figure)
            chosen.send_keys(away)
            first = shown(figure)
            browser.switch_to.active_element.send_keys(back)
            second = shown(figure)
            assert len({before["alt"], first["alt"], second["alt"]}) >= 2
            assert len({before["src"], first["src"], second["src"]}) >= 2


def test_what_a_moved_control_shows_is_announced(browser, page):
    figures = all_of(browser, ".pcbook-explore[data-live]:has([type=range])")
    if not figures:
        return
    handle = figures[0].find_element(By.CSS_SELECTOR, "[type=range]")
    handle.send_keys(Keys.HOME)
    handle.send_keys(Keys.ARROW_RIGHT)
    assert spoken(handle)
    said = figures[0].find_element(By.CSS_SELECTOR, "[aria-live=polite]")
    wait(browser, lambda: said.get_attribute("textContent") == shown(figures[0])["alt"], 20)


def spoken(handle):
    return handle.get_attribute("aria-valuetext")


def shown(figure) -> dict:
    """The picture of a figure that is seen: its words, and the panels together."""
    images = figure.find_elements(By.CSS_SELECTOR, "img.pcbook-figure")
    assert all(image.is_displayed() for image in images)
    return {
        "alt": images[0].get_attribute("alt"),
        "src": "".join(image.get_attribute("src") for image in images),
    }


def test_paper_is_white_and_shows_the_start_of_every_figure_with_its_values(browser, page):
    seen(browser, dark=True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "light"
    for figure in all_of(browser, ".pcbook-explore[data-live]"):
        assert figure.find_element(By.CSS_SELECTOR, ".pcbook-values").is_displayed()
        assert not figure.find_element(By.CSS_SELECTOR, ".pcbook-controls").is_displayed()
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


FIGURE = """
from pcbook.show.explore import Choice, explore, figure
def draw(steps):
    fig, (left, right) = figure(1, 2)
    left.plot([0, steps])
    return fig
explore(draw, steps=Choice((1, 2, 5), start=2), caption="A line.", alt="{steps} steps")
"""
EXERCISE = """
from pcbook import exercises
exercises.check("backprop/waiting", lambda L: {answer})
"""


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder of its own with one notebook in it, that notebook's address."""
    cell = nbformat.v4.new_code_cell
    cells = [
        cell(FIGURE.strip(), metadata={"tags": ["hide-input"]}),
        cell(EXERCISE.format(answer="1").strip(), metadata={"tags": ["exercise"]}),
        cell(
            EXERCISE.format(answer="1 - 1 / L").strip(),
            metadata={"tags": ["solution", "hide-cell"]},
        ),
    ]
    for made in cells:
        notebooks.fold(made)
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "figure.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", tmp_path, "--no-browser", "--allow-root"]
    options = {
        "ServerApp.port": port,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.news_url": None,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    with (
        (tmp_path / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        yield f"http://127.0.0.1:{port}/lab/tree/figure.ipynb"
        server.terminate()


NOTEBOOK = "jupyterapp?.shell.currentWidget"


def opened_in_lab(browser, lab):
    """The figure of the notebook, in JupyterLab with a kernel."""
    browser.get(lab)
    wait(browser, lambda: browser.execute_script(f"return !!window.{NOTEBOOK}?.sessionContext"))
    browser.execute_async_script(
        f"const done = arguments[0]; {NOTEBOOK}.sessionContext.ready.then(() => done())"
    )


def moves(browser):
    """Whether the one figure goes from its start to its end by the keyboard."""
    wait(browser, lambda: all_of(browser, ".pcbook-explore[data-live] [type=range]"))
    (figure,) = all_of(browser, ".pcbook-explore")
    (handle,) = figure.find_elements(By.CSS_SELECTOR, "[type=range]")
    start = shown(figure)["alt"], spoken(handle)
    handle.send_keys(Keys.END)
    return (start, (shown(figure)["alt"], spoken(handle))) == (("2 steps", "2"), ("5 steps", "5"))


def test_a_notebook_in_jupyterlab_is_folded_and_its_figures_outlive_the_kernel(
    browser, lab, tmp_path
):
    seen(browser)
    wait(browser, lambda: answers(lab))
    opened_in_lab(browser, lab)
    browser.execute_script("jupyterapp.commands.execute('notebook:run-all-cells')")
    wait(browser, lambda: len(all_of(browser, ".jp-InputPrompt")) >= 3)
    assert moves(browser)
    wait(browser, lambda: "Not yet" in browser.find_element(By.TAG_NAME, "body").text)
    assert not all_of(browser, "[data-mime-type='application/vnd.jupyter.stderr']")
    assert len(all_of(browser, ".jp-InputPlaceholder")) == 2  # the figure and the solution
    busy = f"return {NOTEBOOK}.sessionContext.kernelDisplayStatus"
    wait(browser, lambda: browser.execute_script(busy) == "idle")
    browser.execute_async_script(
        "const done = arguments[0];"
        "jupyterapp.commands.execute('docmanager:save').then("
        f"() => {NOTEBOOK}.sessionContext.shutdown()).then(() => done())"
    )
    assert "Right." in (tmp_path / "figure.ipynb").read_text(encoding="utf-8")
    opened_in_lab(browser, lab)
    assert moves(browser)
    exported, _ = HTMLExporter().from_filename(str(tmp_path / "figure.ipynb"))
    (tmp_path / "figure.html").write_text(exported, encoding="utf-8")
    browser.get((tmp_path / "figure.html").as_uri())
    assert moves(browser)


def answers(address) -> bool:
    try:
        return urllib.request.urlopen(address).status == 200
    except OSError:
        return False
