"""The server: OpenAI's clients, curl, and what people and networks do to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from conftest import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
import httpx  # noqa: E402 - comes with the client
from serving import serving, wait_until  # noqa: E402

import qwen3asr_native  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
PATH = "/v1/audio/transcriptions"


def client_of(url: str, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def url(model: qwen3asr_native.Model) -> Iterator[str]:
    with serving(model, aliases=("whisper-1",)) as address:
        yield address


@pytest.fixture
def client(url: str) -> Any:
    return client_of(url)


@pytest.fixture(scope="module")
def expected(model: qwen3asr_native.Model) -> Any:
    return model.transcribe(SAMPLE)


@pytest.fixture
def wav(tone: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone, 16000, format="WAV")
    return file.getvalue()


@pytest.fixture
def fake(compile_library: Callable[[Path], Path], tmp_path: Path) -> Callable[..., Any]:
    """A model whose answer says what arrived, and takes as long as a test wants."""

    def begin(steps: int = 1, delay_ms: int = 0) -> qwen3asr_native.Model:
        settings = tmp_path / "fake.bin"
        settings.write_text(f"fake model\nsteps {steps}\ndelay_ms {delay_ms}\n")
        return qwen3asr_native.Model(settings, library=compile_library(ROOT / "tests" / "fake_libchatllm.c"))

    return begin


@pytest.fixture
def endless_url(fake: Callable[..., Any]) -> Iterator[str]:
    """A server whose recognitions end only when they are aborted; one is computed, one may wait."""
    with fake(100_000, 20) as model, serving(model, active=1, queue=1) as address:
        yield address


def running(url: str) -> tuple[int, int]:
    told = httpx.get(f"{url}/health").json()
    return told["running"], told["waiting"]


def post(url: str, content: bytes, **fields: str) -> httpx.Response:
    return httpx.post(url + PATH, files={"file": ("a.wav", content)}, data=fields, timeout=60)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"] and "Traceback" not in error["message"]
    return dict(error)


# What OpenAI's client asks for


def test_the_openai_client_gets_the_text_of_the_library(client: Any, expected: Any) -> None:
    answer = client.audio.transcriptions.create(file=SAMPLE, model="qwen3-asr-mini")
    assert answer.text == expected.text
    assert answer.usage.type == "duration" and answer.usage.seconds == pytest.approx(4.996, abs=0.001)


def test_text_and_subtitles_are_plain_text(client: Any, expected: Any) -> None:
    answers = {
        form: client.audio.transcriptions.create(file=SAMPLE, model="whisper-1", response_format=form)
        for form in ("text", "srt", "vtt")
    }
    assert answers["text"] == expected.text + "\n"
    assert answers["srt"].startswith("1\n00:00:0") and expected.text in answers["srt"].replace("\n", "")
    assert answers["vtt"].startswith("WEBVTT\n\n") and " --> 00:00:0" in answers["vtt"]


def test_verbose_json_has_segments_with_times(client: Any, expected: Any) -> None:
    answer = client.audio.transcriptions.create(
        file=SAMPLE, model="whisper-1", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (answer.text, answer.language) == (expected.text, "chinese")
    assert answer.duration == pytest.approx(4.996, abs=0.001)
    assert [(part.id, part.text) for part in answer.segments] == [
        (i, part.text) for i, part in enumerate(expected.segments)
    ]
    for part, same in zip(answer.segments, expected.segments):
        assert (part.start, part.end) == pytest.approx((same.start, same.end), abs=0.001)


@pytest.mark.parametrize("field", ["timestamp_granularities", "timestamp_granularities[]"])
def test_granularities_come_with_brackets_and_without(url: str, wav: bytes, field: str) -> None:
    answer = post(url, wav, response_format="verbose_json", **{field: "segment"})
    assert "segments" in answer.json()
    assert error_of(post(url, wav, **{field: "segment"}))["param"] == "timestamp_granularities"
    assert (
        error_of(post(url, wav, response_format="verbose_json", **{field: "line"}))["code"] == "invalid_value"
    )


@pytest.mark.parametrize("itn", [False, True])
def test_deltas_add_up_to_the_final_text(
    client: Any, model: qwen3asr_native.Model, expected: Any, itn: bool
) -> None:
    events = list(
        client.audio.transcriptions.create(
            file=SAMPLE, model="whisper-1", stream=True, extra_body={"itn": itn}
        )
    )
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert done.text == "".join(event.delta for event in events[:-1])
    assert done.text == model.transcribe(SAMPLE, itn=itn).text
    assert itn or len(events) > 5, "token by token"
    assert done.usage.output_tokens == expected.timings.new_tokens


def test_log_probabilities_are_those_of_the_tokens(client: Any, expected: Any) -> None:
    answer = client.audio.transcriptions.create(file=SAMPLE, model="whisper-1", include=["logprobs"])
    assert [(part.token, part.logprob) for part in answer.logprobs] == [
        (token.text, token.logprob) for token in expected.tokens if token.logprob is not None
    ]


def test_the_server_limits_the_tokens_of_an_answer(model: qwen3asr_native.Model) -> None:
    with serving(model, max_new_tokens=4) as url:
        answer = post(url, SAMPLE.read_bytes(), response_format="verbose_json")
    (segment,) = answer.json()["segments"]
    assert segment["finish"] == "length" and len(segment["tokens"]) <= 4


def test_a_stream_of_verbose_json_has_segments_too(client: Any, expected: Any) -> None:
    events = list(
        client.audio.transcriptions.create(
            file=SAMPLE, model="whisper-1", stream=True, response_format="verbose_json"
        )
    )
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert [part.text for part in segments] == [part.text for part in expected.segments]
    assert len(events[-1].segments) == len(segments)


def test_a_nameless_upload_is_recognized_by_its_content(client: Any, expected: Any) -> None:
    for file in (io.BytesIO(SAMPLE.read_bytes()), ("song.mp3", SAMPLE.read_bytes(), "audio/mpeg")):
        assert client.audio.transcriptions.create(file=file, model="whisper-1").text == expected.text


def test_prompt_and_language_reach_the_model(fake: Callable[..., Any], wav: bytes) -> None:
    with fake() as model, serving(model) as url:
        answer = client_of(url).audio.transcriptions.create(
            file=("a.wav", wav), model="fake", prompt="Taipei", language="Chinese"
        )
    assert "16000 samples, system 'Taipei', language 'Chinese'" in answer.text


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["qwen3-asr-mini", "whisper-1"]
    assert client.models.retrieve("whisper-1").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


# What is refused, and with which sentence


def test_an_unknown_model_is_not_found(client: Any, wav: bytes) -> None:
    with pytest.raises(openai.NotFoundError, match="qwen3-asr-mini") as caught:
        client.audio.transcriptions.create(file=("a.wav", wav), model="gpt-9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("content", [b"", b"this is no audio at all", b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_bad_audio_is_refused_with_the_sentence_of_the_library(
    client: Any, model: qwen3asr_native.Model, tmp_path: Path, content: bytes
) -> None:
    class Named(io.BytesIO):
        name = "talk.wav"

    with pytest.raises(qwen3asr_native.AudioError) as library:
        model.transcribe(Named(content))
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.audio.transcriptions.create(file=("talk.wav", content), model="whisper-1", stream=stream)
        assert caught.value.body["message"] == str(library.value)
        assert (caught.value.code, caught.value.param) == ("invalid_audio", "file")


def test_an_unknown_language_is_refused_with_the_sentence_of_the_library(
    client: Any, model: qwen3asr_native.Model
) -> None:
    with pytest.raises(qwen3asr_native.LanguageError) as library:
        model.transcribe(SAMPLE, "Klingon")
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=SAMPLE, model="whisper-1", language="Klingon")
    assert (caught.value.body["message"], caught.value.param) == (str(library.value), "language")


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": "diarized_json"},
        {"stream": "perhaps"},
        {"stream": "true", "response_format": "srt"},
        {"temperature": "hot"},
        {"temperature": "7"},
        {"script": "Klingon"},
        {"itn": "2"},
        {"include[]": "everything"},
        {"prompt": "a\0b"},
    ],
)
def test_fields_that_make_no_sense_are_refused(url: str, wav: bytes, fields: dict[str, str]) -> None:
    answer = post(url, wav, **fields)
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


def test_names_of_fields_that_no_header_can_hold_are_answered(url: str, wav: bytes) -> None:
    parts = [(b'"a\x0cb"', b"1"), (b'"\x0c"', b"1"), (b'"file"; filename="a.wav"', wav)]
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; name=" + name + b"\r\n\r\n" + value + b"\r\n"
        for name, value in parts
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(url + PATH, content=body + b"--x--\r\n", headers=kind, timeout=60)
    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "?, a?b")


def test_fields_without_effect_are_named_in_a_header(url: str, wav: bytes) -> None:
    answer = post(url, wav, temperature="0.4", chunking_strategy="auto", beam_size="5")
    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "temperature, beam_size")
    assert "x-ignored-fields" not in post(url, wav, temperature="0").headers


def test_requests_without_a_file_are_refused(url: str) -> None:
    for answer in (
        httpx.post(url + PATH),
        httpx.post(url + PATH, json={"file": "a.wav"}),
        httpx.post(url + PATH, data={"file": "a.wav"}),
        httpx.post(url + PATH, content=b"xx", headers={"content-type": "multipart/form-data"}),
        httpx.post(url + PATH, content=b"xx", headers={"content-type": "multipart/form-data; boundary=b"}),
        httpx.post(url + PATH, files=[("file", b"1"), ("other", b"2")]),
    ):
        assert answer.status_code == 400, answer.text
        error_of(answer)


def test_unknown_paths_and_methods_have_sentences(url: str) -> None:
    assert httpx.get(f"{url}/v2/audio").status_code == 404
    answer = httpx.get(url + PATH)
    assert answer.status_code == 405
    error_of(answer)


def test_large_requests_are_refused(model: qwen3asr_native.Model) -> None:
    with serving(model, max_upload=100_000) as url:
        with pytest.raises(openai.APIStatusError) as caught:
            client_of(url).audio.transcriptions.create(file=("a.wav", bytes(150_000)), model="")
        assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")

        def without_length() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            for _ in range(100):
                yield bytes(10_000)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        assert httpx.post(url + PATH, content=without_length(), headers=headers).status_code == 413


def test_long_audio_is_refused_before_it_is_recognized(
    model: qwen3asr_native.Model, tone: np.ndarray
) -> None:
    with serving(model, max_audio_seconds=2.5) as url:
        for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
            for seconds, status in ((2, 200), (3, 413)):
                file = io.BytesIO()
                soundfile.write(file, np.tile(tone, seconds), 16000, format=form, subtype=subtype)
                answer = post(url, file.getvalue())
                assert answer.status_code == status, (form, answer.text)
        assert error_of(answer)["code"] == "audio_too_long"


def test_audio_whose_header_tells_no_length_is_counted(
    model: qwen3asr_native.Model, tone: np.ndarray
) -> None:
    with serving(model, max_audio_seconds=32) as url:
        for seconds, status in ((2, 200), (70, 413)):
            file = io.BytesIO()
            soundfile.write(file, np.tile(tone, seconds), 16000, format="FLAC")
            content = bytearray(file.getvalue())
            content[21] &= 0xF0  # STREAMINFO: 36 bits of the number of samples
            content[22:26] = bytes(4)
            assert post(url, bytes(content)).status_code == status


# Many at a time, slow ones, and those who leave


def test_a_full_queue_answers_429_with_a_time_to_come_again(endless_url: str, wav: bytes) -> None:
    opened = [_begin_request(endless_url, wav) for _ in range(2)]
    wait_until(lambda: running(endless_url) == (1, 1))
    with pytest.raises(openai.RateLimitError) as caught:
        client_of(endless_url).audio.transcriptions.create(file=("a.wav", wav), model="fake")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    for connection in opened:
        connection.close()
    wait_until(lambda: running(endless_url) == (0, 0))


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_a_client_that_leaves_ends_its_recognition(
    endless_url: str, wav: bytes, fields: dict[str, str]
) -> None:
    connection = _begin_request(endless_url, wav, **fields)
    wait_until(lambda: running(endless_url) == (1, 0))
    if fields:
        assert b"delta" in connection.recv(1 << 16)
    connection.close()
    wait_until(lambda: running(endless_url) == (0, 0))


def test_a_client_that_leaves_the_queue_is_never_computed(endless_url: str, wav: bytes) -> None:
    first, second = (_begin_request(endless_url, wav) for _ in range(2))
    wait_until(lambda: running(endless_url) == (1, 1))
    second.close()
    wait_until(lambda: running(endless_url) == (1, 0))
    first.close()
    wait_until(lambda: running(endless_url) == (0, 0))


def test_a_request_may_not_take_too_long(fake: Callable[..., Any], wav: bytes) -> None:
    with fake(100_000, 20) as model, serving(model, time_limit=0.3) as url:
        answer = post(url, wav)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "time_limit_exceeded")
        with pytest.raises(openai.APIError, match=r"longer than the 0\.3 s"):
            list(client_of(url).audio.transcriptions.create(file=("a.wav", wav), model="fake", stream=True))
        assert running(url) == (0, 0)


def test_an_upload_that_never_ends_is_given_up(model: qwen3asr_native.Model, wav: bytes) -> None:
    with serving(model, upload_limit=0.3) as url:
        connection = _begin_request(url, wav, cut=1000)
        assert b"HTTP/1.1 408" in connection.recv(1 << 16)
        connection.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files")
def test_half_an_upload_leaves_nothing_behind(
    model: qwen3asr_native.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = bytes(3 << 20)  # large enough to lie on the disk
    caplog.set_level(logging.INFO, "qwen3asr_native.server")
    with serving(model) as url:
        connection = _begin_request(url, content, cut=2 << 20)
        connection.close()
        wait_until(lambda: any('"status": 499' in line for line in caplog.messages))
        assert post(url, content).status_code == 400
        wait_until(lambda: _open_below(tmp_path) == [])


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of files")
def test_a_full_disk_is_a_sentence(model_file: Path, tmp_path: Path) -> None:
    with _process("--model", model_file, file_limit=1 << 20) as (_, url):
        answer = post(url, bytes(3 << 20))
        assert (answer.status_code, error_of(answer)["code"]) == (507, "storage_full")
        assert post(url, SAMPLE.read_bytes()).status_code == 200


def test_many_clients_at_a_time_get_their_own_texts(url: str, model: qwen3asr_native.Model) -> None:
    clips = sorted((ROOT / "tests" / "data" / "clips").glob("digits-*.flac"))
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        texts[i] = (
            client_of(url).audio.transcriptions.create(file=clips[i % len(clips)], model="whisper-1").text
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [model.transcribe(clip).text for clip in clips]
    assert texts == {i: alone[i % len(clips)] for i in range(16)}


# Who may ask


def test_without_the_key_nobody_gets_in(model: qwen3asr_native.Model, wav: bytes) -> None:
    with serving(model, api_key="s3cret") as url:
        with pytest.raises(openai.AuthenticationError) as caught:
            client_of(url, "S3cret").audio.transcriptions.create(file=("a.wav", wav), model="")
        assert caught.value.code == "invalid_api_key"
        assert post(url, wav).status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200
        assert client_of(url, "s3cret").models.list().data[0].id == "qwen3-asr-mini"


def test_pages_of_other_origins_need_to_be_named(model: qwen3asr_native.Model, wav: bytes) -> None:
    def ask(url: str, origin: str) -> httpx.Response:
        return httpx.post(url + PATH, files={"file": wav}, headers={"origin": origin})

    with serving(model, cors=("https://good.example",)) as url:
        assert ask(url, url).status_code == 200
        answer = ask(url, "https://good.example")
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            200,
            "https://good.example",
        )
        assert error_of(ask(url, "https://bad.example"))["code"] == "wrong_origin"
        preflight = {"origin": "https://good.example", "access-control-request-method": "POST"}
        assert httpx.options(url + PATH, headers=preflight).status_code == 200


def test_on_loopback_no_other_name_is_answered(url: str, model: qwen3asr_native.Model) -> None:
    port = urlsplit(url).port
    assert httpx.get(f"{url}/health", headers={"host": f"localhost:{port}"}).status_code == 200
    answer = httpx.get(f"{url}/health", headers={"host": f"rebound.example:{port}"})
    assert (answer.status_code, error_of(answer)["code"]) == (421, "wrong_host")
    with serving(model, hosts=("asr.example",)) as other:
        assert httpx.get(f"{other}/health", headers={"host": "ASR.example"}).status_code == 200


# What it tells


def test_metrics_count_requests_and_audio(model: qwen3asr_native.Model) -> None:
    with serving(model) as url:
        post(url, SAMPLE.read_bytes())
        post(url, b"nothing")
        httpx.get(f"{url}/{'x' * 30}")
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    assert 'qwen3asr_requests_total{path="/v1/audio/transcriptions",status="200"} 1.0' in lines
    assert 'qwen3asr_requests_total{path="/v1/audio/transcriptions",status="400"} 1.0' in lines
    assert 'qwen3asr_requests_total{path="other",status="404"} 1.0' in lines
    assert "qwen3asr_running 0.0" in lines
    seconds = next(line for line in lines if line.startswith("qwen3asr_audio_seconds_total"))
    assert float(seconds.split()[1]) == pytest.approx(4.996, abs=0.001)


@pytest.mark.parametrize("log_text", [False, True])
def test_a_request_is_one_line_of_the_log(
    model: qwen3asr_native.Model, expected: Any, caplog: Any, log_text: bool
) -> None:
    caplog.set_level(logging.INFO, "qwen3asr_native.server")
    with serving(model, log_text=log_text) as url:
        answers = [post(url, SAMPLE.read_bytes()), post(url, b"no audio", prompt="private")]
    lines = [json.loads(line) for line in caplog.messages if line.startswith("{")]
    assert [line["id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    assert [line["status"] for line in lines] == [200, 400]
    assert (lines[0]["language"], lines[0]["tokens"]) == ("Chinese", expected.timings.new_tokens)
    assert "no audio" not in caplog.text and "private" not in caplog.text
    assert (expected.text in caplog.text) == log_text


# The process


def test_what_runs_is_finished_and_nothing_new_is_taken(
    fake: Callable[..., Any], compile_library: Callable[[Path], Path], tmp_path: Path, wav: bytes
) -> None:
    if os.name != "posix":
        pytest.skip("no SIGTERM to catch here")
    code = (
        "import sys; from qwen3asr_native import Model, server\n"
        "with Model(sys.argv[1], library=sys.argv[2]) as model:\n"
        "    server.serve(model, server.Settings(port=0), ready=lambda url: print(url, file=sys.stderr, flush=True))"
    )
    fake(100, 20).close()
    library = compile_library(ROOT / "tests" / "fake_libchatllm.c")
    command = [sys.executable, "-c", code, tmp_path / "fake.bin", library]
    with _started(command) as (process, url):
        connection = _begin_request(url, wav)
        wait_until(lambda: running(url) == (1, 0))
        process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                httpx.get(f"{url}/health")
            except httpx.TransportError:
                return True
            return False

        wait_until(refused)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        assert json.load(answer)["text"].endswith(" 98 99")
        process.wait(60)


def test_an_open_server_without_a_key_says_so(model_file: Path) -> None:
    for options, variables, warned in (
        (("--host", "0.0.0.0"), {}, True),
        (("--host", "0.0.0.0"), {"QWEN3ASR_API_KEY": "k"}, False),
        ((), {}, False),
    ):
        with _process("--model", model_file, *options, **variables) as (process, _):
            process.terminate()
            assert ("everybody" in process.notes) == warned


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--api-key", " "), "empty"),
        (("--api-key-file", "nowhere"), "nowhere"),
        (("--host", "no.such.host.invalid"), "listened"),
    ],
)
def test_a_server_that_cannot_begin_says_why(model_file: Path, options: tuple[str, ...], word: str) -> None:
    command = [sys.executable, "-m", "qwen3asr_native", "serve", "--model", str(model_file), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert word in done.stderr


def test_a_port_in_use_is_a_sentence(url: str, model_file: Path) -> None:
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "qwen3asr_native", "serve", "--model", str(model_file), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_can_be_used(url: str, expected: Any) -> None:
    def curl(*arguments: object) -> str:
        command = ["curl", "-sS", "--noproxy", "*", *map(str, arguments), url + PATH]
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()

    assert json.loads(curl("-F", f"file=@{SAMPLE}"))["text"] == expected.text
    assert curl("-F", f"file=@{SAMPLE}", "-F", "response_format=text") == expected.text + "\n"
    events = curl("-N", "-F", f"file=@{SAMPLE}", "-F", "stream=true").split("\n\n")
    assert json.loads(events[-2][len("data: ") :])["text"] == expected.text


def _open_below(folder: Path) -> list[str]:
    """What this process holds open in a folder; temporary files have no name there."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            opened.append(os.readlink(descriptor))
    return [path for path in opened if path.startswith(str(folder))]


def _begin_request(url: str, content: bytes, cut: int | None = None, **fields: str) -> socket.socket:
    """Sends a request, or the beginning of one, and does not wait for its answer."""
    request = httpx.Request("POST", url + PATH, files={"file": ("a.wav", content)}, data=fields)
    body = request.read()
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    head = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body[:cut])
    return connection


class _Process:
    """A server as a process of its own; use as a context."""

    def __init__(self, command: list[Any], file_limit: int | None, variables: dict[str, str]) -> None:
        def limit() -> None:
            if file_limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
            preexec_fn=limit if os.name == "posix" else None,
        )
        self.notes = ""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.notes += line
            if "http://" in line:
                self.url = line[line.index("http://") :].strip().replace("0.0.0.0", "127.0.0.1")
                break
        else:
            raise AssertionError(self.notes)
        # Nothing may wait for a reader of its log.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()
        self.terminate, self.send_signal, self.wait = (
            self._process.terminate,
            self._process.send_signal,
            self._process.wait,
        )

    def __enter__(self) -> tuple[_Process, str]:
        return self, self.url

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _started(command: list[Any], file_limit: int | None = None, **variables: str) -> _Process:
    return _Process(command, file_limit, variables)


def _process(*options: object, file_limit: int | None = None, **variables: str) -> _Process:
    command = [sys.executable, "-m", "qwen3asr_native", "serve", "--port", 0, *options]
    return _Process(command, file_limit, variables)
