"""The server's page in a real browser, headless, with a file as its microphone."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import pytest
import soundfile
from conftest import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from serving import serving, wait_until  # noqa: E402

import qwen3asr_native  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver is installed")
#: Where pictures of the page go, for the documents; none are made without it.
PICTURES = os.environ.get("QWEN3ASR_PICTURES")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads, and the file that stands for the microphone: the sample, then silence."""
    folder = tmp_path_factory.mktemp("browser")
    samples, rate = soundfile.read(SAMPLE)
    spoken = np.concatenate([np.zeros(rate), samples, np.zeros(3 * rate)])
    soundfile.write(folder / "microphone.wav", np.repeat(spoken, 3), 3 * rate)
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "lang=en-US",
        f"user-data-dir={folder / 'profile'}",
        "use-fake-ui-for-media-stream",
        "use-fake-device-for-media-stream",
        f"use-file-for-fake-audio-capture={folder / 'microphone.wav'}%noloop",
        "autoplay-policy=no-user-gesture-required",
    ):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(900, 1000)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def url(model: qwen3asr_native.Model) -> Iterator[str]:
    with serving(model, max_upload=2 << 20) as address:
        yield address


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: Any, url: str, language: str = "en") -> None:
        self.browser = browser
        browser.get(url)
        browser.execute_script("localStorage.setItem('page-language', arguments[0])", language)
        browser.get(url)
        wait_until(lambda: self.text("model"))

    def find(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(self.find(name).text)

    def upload(self, path: Path) -> None:
        self.find("file").send_keys(str(path))

    def segments(self) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, "#segments button"))

    def picture(self, name: str) -> None:
        if PICTURES:
            self.browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))

    def logged(self) -> list[str]:
        """What the browser complains about, but for answers that are errors and mean to be."""
        lines = [entry["message"] for entry in self.browser.get_log("browser")]
        return [line for line in lines if "Failed to load resource" not in line]


@pytest.fixture
def page(browser: Any, url: str) -> Page:
    return Page(browser, url)


def test_an_upload_becomes_text_with_times(page: Page, model: qwen3asr_native.Model) -> None:
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    expected = model.transcribe(SAMPLE)
    assert page.text("text") == expected.text
    assert page.find("downloads").is_displayed() and not page.find("stop").is_displayed()
    assert [button.text for button in page.segments()] == [part.text for part in expected.segments]
    page.picture("page")
    assert page.logged() == []


def test_tokens_are_shown_before_the_end(
    browser: Any, compile_library: Callable[[Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "fake.bin").write_text("fake model\nsteps 100000\ndelay_ms 20\n")
    library = compile_library(ROOT / "tests" / "fake_libchatllm.c")
    with qwen3asr_native.Model(tmp_path / "fake.bin", library=library) as model, serving(model) as url:
        page = Page(browser, url)
        page.upload(SAMPLE)
        wait_until(lambda: " 5 6 7" in page.text("text"))
        assert page.text("status") == "Recognizing …"
        assert not page.find("downloads").is_displayed()
        page.find("stop").click()
        wait_until(lambda: page.text("status") == "Stopped.")
        assert page.find("record").is_enabled()


def test_a_click_on_a_segment_plays_from_there(page: Page) -> None:
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    page.browser.execute_script("document.getElementById('player').currentTime = 3")
    page.segments()[0].send_keys(Keys.ENTER)
    wait_until(lambda: not page.browser.execute_script("return document.getElementById('player').paused"))
    assert page.browser.execute_script("return document.getElementById('player').currentTime") < 3


def test_options_reach_the_server(page: Page, model: qwen3asr_native.Model) -> None:
    page.find("itn").click()
    page.find("traditional").click()
    page.find("language").send_keys("Chinese")
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    assert page.text("text") == model.transcribe(SAMPLE, "Chinese", itn=True, script="zh-TW").text


@pytest.mark.parametrize("kind", ["txt", "srt", "vtt", "json"])
def test_the_text_can_be_downloaded(
    page: Page, folder: Path, model: qwen3asr_native.Model, kind: str
) -> None:
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    page.browser.find_element(By.CSS_SELECTOR, f"[data-download={kind}]").click()
    path = folder / f"{SAMPLE.stem}.{kind}"
    wait_until(path.exists)
    content = path.read_text(encoding="utf-8")
    text = model.transcribe(SAMPLE).text
    if kind == "json":
        assert json.loads(content)["text"] == text
    else:
        assert text in content.replace("\n", "")
        assert content.startswith({"txt": text, "srt": "1\n", "vtt": "WEBVTT\n"}[kind])


def test_errors_are_sentences_on_the_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_text("this is no audio")
    page.upload(tmp_path / "talk.wav")
    wait_until(lambda: "'talk.wav' is not audio" in page.text("error"))
    page.picture("page-error")
    (tmp_path / "large.wav").write_bytes(bytes(3 << 20))
    page.upload(tmp_path / "large.wav")
    wait_until(lambda: "2 MB" in page.text("error"))
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    assert page.text("error") == ""


def test_without_its_server_the_page_says_so(browser: Any, model: qwen3asr_native.Model) -> None:
    with serving(model) as url:
        page = Page(browser, url)
    page.upload(SAMPLE)
    wait_until(lambda: "cannot be reached" in page.text("error"))


def test_the_key_is_asked_for_and_sent(browser: Any, model: qwen3asr_native.Model) -> None:
    with serving(model, api_key="s3cret") as url:
        page = Page(browser, url)
        page.upload(SAMPLE)
        wait_until(lambda: "API key" in page.text("error"))
        page.find("key").send_keys("s3cret")
        page.upload(SAMPLE)
        wait_until(lambda: page.text("status") == "Done.")


def test_what_is_recorded_is_recognized(page: Page) -> None:
    page.find("record").click()
    wait_until(lambda: page.text("status") == "Recording …")
    page.browser.execute_async_script("setTimeout(arguments[0], 2500)")
    page.find("stop").click()
    wait_until(lambda: page.text("status") in ("Done.", "No speech was found."))
    duration = page.browser.execute_async_script(
        "const p = document.getElementById('player'); const tell = arguments[0];"
        "p.readyState ? tell(p.duration) : p.onloadedmetadata = () => tell(p.duration)"
    )
    assert duration > 1
    assert page.text("error") == ""


def test_live_speech_has_a_tail_and_then_its_text(page: Page, model: qwen3asr_native.Model) -> None:
    page.find("itn").click()
    page.find("live").click()
    wait_until(lambda: page.text("tail"))
    page.picture("page-live")
    wait_until(lambda: page.segments())
    page.find("stop").click()
    wait_until(lambda: page.text("status") == "Done.")
    assert page.text("tail") == ""
    assert page.text("text") == " ".join(button.text for button in page.segments())
    digits = [sign for sign in page.text("text") if sign.isdigit()]
    assert len(digits) >= 8, page.text("text")
    assert page.segments()[0].is_enabled(), "what was said can be played"
    assert page.logged() == []


def test_the_page_speaks_traditional_chinese(browser: Any, url: str) -> None:
    page = Page(browser, url, "zh-TW")
    assert page.text("record") == "錄音"
    assert page.browser.execute_script("return document.documentElement.lang") == "zh-TW"
    texts = page.browser.execute_script(
        "return [...document.querySelectorAll('[data-text]')].map((element) => element.textContent)"
    )
    assert all(texts)
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "完成。")
    page.picture("page-zh-TW")


def test_every_control_has_a_name_and_the_keyboard_reaches_it(page: Page) -> None:
    unnamed = page.browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, audio')].filter((element) => element.offsetParent)"
        ".filter((element) => !(element.textContent.trim() || element.labels?.[0]?.textContent.trim() || element.controls))"
        ".map((element) => element.id)"
    )
    assert unnamed == []
    reached = []
    for _ in range(24):
        webdriver.ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element.get_attribute("id"))
    assert {"file", "record", "live", "language", "context", "traditional", "itn"} <= set(reached)


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, url: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        page = Page(browser, url)
        page.upload(SAMPLE)
        wait_until(lambda: page.text("status") == "Done.")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        page.picture("page-phone")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_asks_no_other_server(page: Page, url: str) -> None:
    page.upload(SAMPLE)
    wait_until(lambda: page.text("status") == "Done.")
    names = page.browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert names and all(name.startswith((url, "blob:", "data:")) for name in names)


def test_subtitles_of_nonsense_are_refused(url: str) -> None:
    httpx = pytest.importorskip("httpx")
    good = {"segments": [{"start": 0, "end": 1.5, "text": "one"}]}
    assert httpx.post(f"{url}/v1/subtitles?format=srt", json=good).text.startswith("1\n00:00:00,000 --> ")
    for content in (
        b"",
        b"[]",
        b'{"segments": 1}',
        b'{"segments": [{"start": 2, "end": 1, "text": ""}]}',
        b"{" * 9000,
    ):
        answer = httpx.post(f"{url}/v1/subtitles", content=io.BytesIO(content).read())
        assert answer.status_code == 400
    assert httpx.post(f"{url}/v1/subtitles?format=doc", json=good).status_code == 400
