"""Whatever comes in, something in order comes out: damaged and random input to what strangers reach."""

from __future__ import annotations

import base64
import io
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen3asr_native import Model, Qwen3AsrError, subtitles
from qwen3asr_native.audio import pieces
from qwen3asr_native.text import parse
from qwen3asr_native.transcript import Segment, Timings

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("QWEN3ASR_EXAMPLES", "60"))
modest = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

# Any text, and often what means something somewhere.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            "language |<asr_text>|Chinese|None|-->|\n|\n\n|\r|<b>|&lt;|WEBVTT|1\n|\x00|\u2028|\ufeff|一百二十三|百分之|點|%".split(
                "|"
            )
        ),
    ),
    max_size=10,
).map("".join)


def recordings() -> dict[str, bytes]:
    tone = (0.1 * np.sin(np.arange(4000) * 0.3)).astype(np.float32)
    made = {}
    for kind, subtype in [
        ("WAV", "ULAW"), ("WAV", "MS_ADPCM"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "ALAC_16"),
        ("W64", "PCM_24"), ("RF64", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
    ]:  # fmt: skip
        if soundfile.check_format(kind, subtype):
            file = io.BytesIO()
            soundfile.write(file, tone, 16000, format=kind, subtype=subtype)
            made[f"{kind} {subtype}"] = file.getvalue()
    return made


RECORDINGS = recordings()
MAGICS = (
    b"RIFF\x00\x00\x00\x00WAVEfmt ",
    b"\x1aE\xdf\xa3",
    b"\x00\x00\x00\x18ftypmp42",
    b"OggS\x00\x02",
    b"fLaC",
    b"ID3\x04",
    b"FORM",
)


@given(st.data())
@modest
def test_damaged_recordings_of_any_format_give_samples_or_an_error(data: st.DataObject) -> None:
    content = bytearray(RECORDINGS[data.draw(st.sampled_from(sorted(RECORDINGS)))])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    check_audio(bytes(content))


@given(st.sampled_from((b"", *MAGICS)), st.binary(max_size=400))
@modest
def test_bytes_that_are_no_recording_are_an_error(magic: bytes, rest: bytes) -> None:
    check_audio(magic + rest)


def check_audio(content: bytes) -> None:
    try:
        found = list(pieces(io.BytesIO(content)))
    except Qwen3AsrError as error:
        assert "\n" not in str(error).strip()
    else:
        assert all(piece.pcm.dtype == np.float32 and np.isfinite(piece.pcm).all() for piece in found)


@given(TEXTS, st.sampled_from((None, "Chinese", "English")))
@modest
def test_any_answer_of_a_model_is_a_text_and_subtitles(raw: str, forced: str | None) -> None:
    parsed = parse.parse_output(raw, forced)
    told = [Segment(0.0, 2.5, parsed.text, "", raw, None, Timings())] if parsed.text.strip() else []
    pysubs2 = pytest.importorskip("pysubs2")
    cues = subtitles.cues(told)
    for kind, render in (("srt", subtitles.srt), ("vtt", subtitles.vtt)):
        content = render(told)
        read = pysubs2.SSAFile.from_string(content, format_=kind) if cues else []
        assert len(read) == len(cues), content


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx")
    from serving import serving

    with Model() as model, serving(model) as address:
        yield address


SAMPLE = (ROOT / "samples" / "phone-number-zh-TW.wav").read_bytes()
FIELDS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(
                "model language prompt response_format stream script itn include[] temperature keywords[] languages "
                "timestamp_granularities[] chunking_strategy file".split()
            ),
            st.text(max_size=6),
        ),
        st.one_of(
            st.sampled_from(
                "json text srt vtt verbose_json true false word segment logprobs auto zh en 0.5 nan zh-TW".split()
            ),
            st.text(max_size=12),
        ),
    ),
    max_size=6,
)


# What a client of /v1/realtime may send: the protocol's events, damaged ones, other JSON, text, bytes.
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
        st.sampled_from(["audio/pcm", "server_vad", "zh", "transcription", 8000, 16000, 24000, 48000, -1]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    "session audio input format type rate transcription language prompt model script itn turn_detection "
                    "include".split()
                ),
                st.text(max_size=4),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)  # fmt: skip
SAMPLES = [base64.b64encode(bytes(count)).decode() for count in (0, 1, 2, 3200, 64000)]
EVENTS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("input_audio_buffer.append"), "audio": st.one_of(st.sampled_from(SAMPLES), VALUES)}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"])}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["session.update", "transcription_session.update"]), "session": VALUES}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("session.update"),
            "session": st.fixed_dictionaries(
                {
                    "type": st.just("transcription"),
                    "audio": st.fixed_dictionaries(
                        {
                            "input": st.fixed_dictionaries(
                                {},
                                optional={
                                    "format": VALUES,
                                    "transcription": VALUES,
                                    "turn_detection": st.one_of(st.none(), VALUES),
                                },
                            )
                        }
                    ),
                }
            ),
        }
    ),
    st.dictionaries(st.text(max_size=6), VALUES, max_size=3),
).map(json.dumps)
MESSAGES = st.lists(
    st.one_of(EVENTS, EVENTS, EVENTS, st.text(max_size=40), st.binary(max_size=40), VALUES.map(json.dumps)),
    max_size=8,
)


@given(MESSAGES, st.booleans())
@modest
def test_any_messages_of_a_live_client_are_answered_and_the_session_goes_on(
    url: str, messages: list[str | bytes], leaves: bool
) -> None:
    import httpx

    client = pytest.importorskip("websockets.sync.client")
    address = url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    with client.connect(address, proxy=None) as socket:
        for message in messages:
            socket.send(message)
        if not leaves:
            # This one is answered at last, whatever came before it.
            socket.send('{"type": "no such event of ours"}')
            told = {"type": ""}
            while not (told["type"] == "error" and "no such event of ours" in told["error"]["message"]):
                told = json.loads(socket.recv(60))
                if told["type"] in ("error", "conversation.item.input_audio_transcription.failed"):
                    assert told["error"]["message"]
                    assert told["error"]["type"] != "server_error", told
    assert httpx.get(f"{url}/health", timeout=60).status_code == 200


def multipart(fields: list[tuple[str, str]], files: list[tuple[str, str, bytes]]) -> bytes:
    parts = [(f'form-data; name="{name}"', value.encode("utf-8", "replace")) for name, value in fields]
    parts += [(f'form-data; name="{name}"; filename="{file}"', content) for name, file, content in files]
    body = b"".join(
        b"--b\r\nContent-Disposition: " + head.encode("utf-8", "replace") + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return body + b"--b--\r\n"


@given(
    FIELDS,
    st.lists(
        st.tuples(
            st.sampled_from(("file", "file", "other", "")),
            st.one_of(st.just("a.wav"), st.text(max_size=6)),
            st.sampled_from((SAMPLE[:8000], SAMPLE[:20], b"", b"ID3", SAMPLE[:44] + b"\x01")),
        ),
        max_size=2,
    ),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=2),
    st.sampled_from(("multipart/form-data; boundary=b", "multipart/form-data", "application/json", "")),
)
@modest
def test_any_form_is_answered_and_the_server_lives(
    url: str,
    fields: list[tuple[str, str]],
    files: list[tuple[str, str, bytes]],
    damage: list[tuple[int, int]],
    kind: str,
) -> None:
    import httpx

    body = bytearray(multipart(fields, files))
    for at, value in damage:
        body[at % len(body)] = value
    answer = httpx.post(
        f"{url}/v1/audio/transcriptions", content=bytes(body), headers={"content-type": kind}, timeout=60
    )
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert json.loads(answer.text)["error"]["message"]
    assert httpx.get(f"{url}/health", timeout=60).status_code == 200
