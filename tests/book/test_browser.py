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
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from missing import missing
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
DOCUMENTS = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [d for d in DOCUMENTS if (ROOT / f"{d}.ipynb").exists()]

each_document = pytest.mark.parametrize("document", DOCUMENTS)
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
    frames = set(re.findall(r"data:image/webp;base64,([\w+/=]+)", page))
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


def started(**preferences):
    """A new Chromium, or word that there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        missing("a browser", "install Chromium and its driver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in QUIET:
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture(scope="module")
def browser():
    browser = started()
    browser.set_script_timeout(120)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def without_scripts():
    browser = started(**{"profile.managed_default_content_settings.javascript": 2})
    yield browser
    browser.quit()


def wait(browser, condition, seconds=120):
    return WebDriverWait(browser, seconds).until(lambda _: condition())


def opened(browser, url, *, dark=False, width=1280):
    """Open a page and wait until its mathematics and widgets are there."""
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
    screen = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages said
    browser.get(url)
    wait(browser, lambda: len(all_of(browser, ".pcbook-explore .noUi-handle")) >= sliders(browser))
    wait(browser, lambda: len(all_of(browser, "mjx-container")) >= len(all_of(browser, ".math")))


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def sliders(browser) -> int:
    """How many sliders the page's figures have when they are ready: at least one each."""
    return len(all_of(browser, ".pcbook-explore"))


@each_document
def test_a_page_asks_nobody_else_and_complains_of_nothing(browser, address, document):
    opened(browser, f"{address}{document}.html")
    time.sleep(0.5)  # for what a script may still ask for
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in requests
        if message["method"] == "Network.requestWillBeSent"
    }
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert f"{address}{document}.html" in asked
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not complaints


@each_document
def test_every_image_on_a_page_has_alt_text(browser, address, document):
    opened(browser, f"{address}{document}.html")
    images = "[...document.images].filter(image => !image.hidden)"
    alts = browser.execute_script(f"return {images}.map(image => image.alt)")
    assert all(alt and alt.strip() for alt in alts)


@each_document
def test_a_page_does_not_scroll_sideways_on_a_phone(browser, address, document):
    opened(browser, f"{address}{document}.html", width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


@each_document
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_violation_in_the_content(browser, address, document, dark):
    opened(browser, f"{address}{document}.html", dark=dark)
    browser.execute_script((ROOT / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run('article.bd-article').then(r => done(r.violations))"
    )
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious


@each_chapter
def test_every_slider_changes_the_picture_from_the_keyboard(browser, address, document):
    opened(browser, f"{address}{document}.html")
    for figure in all_of(browser, ".pcbook-explore"):
        handles = figure.find_elements(By.CSS_SELECTOR, ".noUi-handle")
        first = shown(figure)
        for handle in handles:
            handle.send_keys(Keys.END)
        for handle in handles:
            at_end, value = shown(figure), spoken(handle)
            assert described(handle)
            assert value
            handle.send_keys(Keys.HOME)
            wait(browser, lambda f=figure, e=at_end: shown(f)["src"] != e["src"], 20)
            assert spoken(handle) != value
            handle.send_keys(Keys.END)
            wait(browser, lambda f=figure, e=at_end: shown(f) == e, 20)
        for handle in handles:
            handle.send_keys(Keys.HOME)
        wait(browser, lambda f=figure, first=first: shown(f) == first, 20)


@each_chapter
def test_names_and_values_of_sliders_can_be_read_whole(browser, address, document):
    opened(browser, f"{address}{document}.html")
    words = "[...document.querySelectorAll('.pcbook-explore :is(.widget-label, .widget-readout)')]"
    cut = "word => word.scrollWidth > word.clientWidth"
    assert not browser.execute_script(f"return {words}.filter({cut}).map(w => w.textContent)")


def described(handle):
    return handle.get_attribute("aria-label")


def spoken(handle):
    return handle.get_attribute("aria-valuetext")


def shown(figure) -> dict:
    """The one picture of an interactive figure that can be seen."""
    images = [image for image in figure.find_elements(By.TAG_NAME, "img") if image.is_displayed()]
    assert len(images) == 1
    return {name: images[0].get_attribute(name) for name in ("src", "alt")}


@each_chapter
def test_without_scripts_the_first_picture_of_every_figure_stands_in(
    without_scripts, address, document
):
    without_scripts.get(f"{address}{document}.html")
    for figure in all_of(without_scripts, ".pcbook-explore"):
        assert not figure.find_elements(By.CSS_SELECTOR, ".noUi-handle")
        assert shown(figure)["src"].startswith("data:image/webp")
        assert shown(figure)["alt"]


@each_chapter
def test_figures_lie_on_a_black_card_when_the_page_is_dark(browser, address, document):
    opened(browser, f"{address}{document}.html", dark=True)
    for image in all_of(browser, ".pcbook-figure"):
        assert image.value_of_css_property("background-color") == "rgba(0, 0, 0, 1)"
        assert image.value_of_css_property("filter") == "none"


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder of its own with one notebook in it, that notebook's address."""
    source = """
        from pcbook.show.explore import explore, figure
        def draw(steps):
            fig, ax = figure()
            ax.plot([0, steps])
            return fig
        explore(draw, steps=(1, 2, 5), alt="{steps} steps")
    """
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(source))],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
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


def test_a_live_kernel_has_the_same_slider_and_the_same_words_for_it(browser, lab):
    wait(browser, lambda: answers(lab))
    browser.get(lab)
    notebook = "jupyterapp?.shell.currentWidget"
    wait(browser, lambda: browser.execute_script(f"return !!window.{notebook}?.sessionContext"))
    browser.execute_script(
        f"return {notebook}.sessionContext.ready"
        ".then(() => jupyterapp.commands.execute('notebook:run-all-cells'))"
    )
    wait(browser, lambda: all_of(browser, ".pcbook-sliders .noUi-handle"))
    (figure,) = all_of(browser, ".pcbook-sliders")
    (handle,) = figure.find_elements(By.CSS_SELECTOR, ".noUi-handle")
    wait(browser, lambda: described(handle) == "steps" and spoken(handle) == "1")
    assert shown(figure)["alt"] == "1 steps"
    handle.send_keys(Keys.END)
    wait(browser, lambda: shown(figure)["alt"] == "5 steps" and spoken(handle) == "5")


def answers(address) -> bool:
    try:
        return urllib.request.urlopen(address).status == 200
    except OSError:
        return False
