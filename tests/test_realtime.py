"""Live speech over a WebSocket, with OpenAI's client and by hand."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import pytest
import soundfile
from conftest import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
client_module = pytest.importorskip("websockets.sync.client")
import httpx  # noqa: E402 - comes with the client
from serving import serving, wait_until  # noqa: E402
from websockets.exceptions import InvalidStatus  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import qwen3asr_native

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
EVENT = "conversation.item.input_audio_transcription."


@pytest.fixture(scope="module")
def url(model: qwen3asr_native.Model) -> Iterator[str]:
    with serving(model) as address:
        yield address


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """The sample and a second of silence behind it, int16, 16 kHz."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    assert rate == 16000
    return np.concatenate([samples, np.zeros(16000, np.int16)])


def connect(url: str, **options: Any) -> Any:
    address = url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    return client_module.connect(address, proxy=None, **options)


def say(socket: Any, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def update(socket: Any, turns: bool, rate: int = 16000, include: tuple[str, ...] = (), **words: Any) -> None:
    given = {
        "format": {"type": "audio/pcm", "rate": rate},
        "transcription": words,
        "turn_detection": {"type": "server_vad"} if turns else None,
    }
    session = {"type": "transcription", "audio": {"input": given}, "include": list(include)}
    say(socket, "session.update", session=session)


def append(socket: Any, samples: np.ndarray, block: int = 4000) -> None:
    for begin in range(0, len(samples), block):
        audio = base64.b64encode(samples[begin : begin + block].tobytes()).decode()
        say(socket, "input_audio_buffer.append", audio=audio)


def read_until(socket: Any, kind: str) -> list[dict[str, Any]]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv(60)))
    return events


def test_the_openai_client_transcribes_what_it_commits(
    url: str, model: qwen3asr_native.Model, speech: np.ndarray
) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        given = {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None}
        connection.session.update(session={"type": "transcription", "audio": {"input": given}})
        louder = np.repeat(speech, 3)[::2].copy()  # 24 kHz, roughly
        connection.input_audio_buffer.append(audio=base64.b64encode(louder.tobytes()).decode())
        connection.input_audio_buffer.commit()
        events = []
        for event in connection:
            events.append(event)
            if event.type == EVENT + "completed":
                break
    kinds = [event.type for event in events]
    assert kinds[:3] == ["session.created", "session.updated", "input_audio_buffer.committed"]
    deltas = [event.delta for event in events if event.type == EVENT + "delta"]
    expected = model.transcribe(louder, sample_rate=24000).text
    assert len(deltas) > 3
    assert "".join(deltas) == events[-1].transcript == expected


def test_turns_are_found_and_their_text_is_that_of_the_library(
    url: str, model: qwen3asr_native.Model, speech: np.ndarray
) -> None:
    with model.live(itn=True) as live:
        live.feed(speech)
        live.feed(speech)
        segments = live.finish().segments
    assert len(segments) == 2
    with connect(url) as socket:
        update(socket, True, itn=True, include=(EVENT.replace("conversation.", "") + "hypothesis",))
        append(socket, np.concatenate([speech, speech]))
        say(socket, "input_audio_buffer.commit")
        events = read_until(socket, EVENT + "completed") + read_until(socket, EVENT + "completed")
    done = [event for event in events if event["type"] == EVENT + "completed"]
    assert [event["transcript"] for event in done] == [segment.text for segment in segments]
    assert [event["start"] for event in done] == pytest.approx(
        [segment.start for segment in segments], abs=0.01
    )
    items = [event["item_id"] for event in events if event["type"] == "input_audio_buffer.speech_started"]
    assert [event["item_id"] for event in done] == items
    committed = [event for event in events if event["type"] == "input_audio_buffer.committed"]
    assert [event["previous_item_id"] for event in committed] == [None, items[0]]
    assert any(event["type"] == EVENT + "hypothesis" and event["text"] for event in events)


def test_hypotheses_come_only_to_those_who_include_them(url: str, speech: np.ndarray) -> None:
    with connect(url) as socket:
        update(socket, True)
        append(socket, speech)
        say(socket, "input_audio_buffer.commit")
        events = read_until(socket, EVENT + "completed")
    assert EVENT + "hypothesis" not in [event["type"] for event in events]


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (b"\0\1", "JSON"),
        ("[" * 100_000, "JSON"),
        ("no json", "JSON"),
        ("[1]", "JSON"),
        ('{"type": "response.create"}', "response.create"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "base64"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "16-bit"),
        ('{"type": "input_audio_buffer.commit"}', "append"),
        ('{"type": "session.update"}', "session"),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}',
            "pcm",
        ),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "x"}}}}}',
            "model",
        ),
    ],
)
def test_a_bad_event_is_answered_and_the_session_goes_on(url: str, event: str | bytes, word: str) -> None:
    with connect(url) as socket:
        socket.send(event)
        answer = read_until(socket, "error")[-1]["error"]
        assert word in answer["message"]
        update(socket, False)
        read_until(socket, "session.updated")


def test_a_language_that_the_model_does_not_know_is_said(url: str, speech: np.ndarray) -> None:
    for turns, kind in ((False, EVENT + "failed"), (True, "error")):
        with connect(url) as socket:
            update(socket, turns, language="Klingon")
            append(socket, speech[:16000], block=16000)
            if not turns:
                say(socket, "input_audio_buffer.commit")
            assert "Klingon" in read_until(socket, kind)[-1]["error"]["message"]


def test_a_client_that_leaves_ends_what_it_committed(
    url: str, model: qwen3asr_native.Model, speech: np.ndarray
) -> None:
    with connect(url) as socket:
        update(socket, False)
        append(socket, np.tile(speech, 20), block=64000)
        say(socket, "input_audio_buffer.commit")
        read_until(socket, EVENT + "delta")
    wait_until(lambda: httpx.get(f"{url}/health").json()["running"] == 0)


def test_sessions_are_counted_and_limited(model: qwen3asr_native.Model) -> None:
    with serving(model, max_sessions=1) as url:
        with connect(url):
            with pytest.raises(InvalidStatus) as caught:
                connect(url)
            assert caught.value.response.status_code == 429
            assert "qwen3asr_sessions 1.0" in httpx.get(f"{url}/metrics").text
        wait_until(lambda: "qwen3asr_sessions 0.0" in httpx.get(f"{url}/metrics").text)


def test_a_session_needs_the_key_and_a_known_origin(model: qwen3asr_native.Model) -> None:
    with serving(model, api_key="s3cret") as url:
        refused: list[tuple[dict[str, Any], int]] = [
            ({}, 401),
            ({"additional_headers": {"Authorization": "Bearer no"}}, 401),
            ({"subprotocols": ["realtime", "openai-insecure-api-key.no"]}, 401),
            ({"origin": "https://bad.example"}, 403),
        ]
        for options, status in refused:
            with pytest.raises(InvalidStatus) as caught:
                connect(url, **options)
            assert caught.value.response.status_code == status
        good: list[dict[str, Any]] = [
            {"additional_headers": {"Authorization": "Bearer s3cret"}},
            {"subprotocols": ["realtime", "openai-insecure-api-key.s3cret"]},
        ]
        for options in good:
            with connect(url, **options) as socket:
                read_until(socket, "session.created")


def test_the_buffer_of_a_session_is_limited(
    model: qwen3asr_native.Model, speech: np.ndarray, tone: Callable[..., Any]
) -> None:
    with serving(model, max_audio_seconds=3) as url, connect(url) as socket:
        update(socket, False)
        append(socket, speech[: 4 * 16000], block=16000)
        assert "commit or clear" in read_until(socket, "error")[-1]["error"]["message"]
