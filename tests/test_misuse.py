"""Any order of calls, right or wrong, of the C API and of the Python API, against a model of what each must answer.

QWEN3ASR_EXAMPLES=2000 makes minutes of it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from qwen3asr_native import Aligner, Model, ModelClosedError, Qwen3AsrError, Transcript
from qwen3asr_native._native import ffi, lib
from qwen3asr_native.files import hub

OK, ERROR, BAD_ARGUMENT, BAD_MODEL, BAD_AUDIO, BUSY, NOT_STARTED = 0, -1, -2, -3, -4, -6, -7
INT_MIN = -(1 << 31)
SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
LIMITS = settings(
    max_examples=int(os.environ.get("QWEN3ASR_EXAMPLES", "20")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
POOL = ThreadPoolExecutor(1)
SOUND = ffi.new("float[]", (0.1 * np.sin(np.arange(40000) * 0.2)).astype(np.float32).tolist())
NONSENSE = ffi.new("float[]", [float("nan")] * 9000)


def told(obj: Any) -> str:
    text = ffi.string(lib.chatllm_asr_last_error(obj)).decode()
    assert "\n" not in text
    return text


@dataclass(eq=False)
class Machine:
    """An object of the C API, and what is known of it."""

    handle: Any
    words: list[str] = field(default_factory=list)
    purpose: str | None = None  # of the model that is loaded
    printed: list[int] = field(default_factory=list)
    in_callback: list[int] = field(default_factory=list)  # what calls from a callback have answered
    ends: int = 0
    had_runs: bool = False


@dataclass(eq=False)
class Utterance:
    """A run of the C API, and what its events said."""

    machine: Machine
    live: bool
    handle: Any = ffi.NULL
    begins: int = 0
    steps: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    ends: int = 0
    status: int = 0
    finish: int = 0
    message: str = ""
    cancelled: bool = False
    fed_last: bool = False
    released: bool = False
    late: int = 0  # events after the release
    action: str = ""
    other: list[Any] = field(default_factory=list)


PRINTS: dict[int, Machine] = {}
EVENTS: dict[int, Utterance] = {}


@ffi.callback("void(void *, int, const char *)")
def on_print(user_data: Any, kind: int, text: Any) -> None:
    machine = PRINTS[int(ffi.cast("intptr_t", user_data))]
    machine.printed.append(kind)
    assert text != ffi.NULL
    if kind == lib.PRINT_CHAT_CHUNK:  # the object is at work: it takes no other call, and does not go
        obj = machine.handle
        machine.in_callback += [
            lib.chatllm_user_input(obj, b"x"),
            lib.chatllm_destroy(obj),
            lib.chatllm_start(obj, ffi.NULL, ffi.NULL, ffi.NULL),
            lib.chatllm_asr_run(obj, SOUND, 9000, ffi.NULL),
            lib.chatllm_set_additional_args(obj, b"language=auto"),
        ]


@ffi.callback("void(void *)")
def on_end(user_data: Any) -> None:
    PRINTS[int(ffi.cast("intptr_t", user_data))].ends += 1


@ffi.callback("void(void *, const chatllm_asr_event *)")
def on_event(user_data: Any, event: Any) -> None:
    run = EVENTS[int(ffi.cast("intptr_t", user_data))]
    run.late += run.released
    if event.kind == lib.CHATLLM_ASR_EVENT_BEGIN:
        run.begins += 1
        if run.action == "cancel":
            run.cancelled = True
            lib.chatllm_asr_cancel(run.handle)
        elif run.action == "destroy":
            assert lib.chatllm_destroy(run.machine.handle) == BUSY
        elif run.action == "feed" and not run.fed_last:
            assert lib.chatllm_asr_feed(run.handle, SOUND, 800, 0) in (OK, BAD_ARGUMENT)
        elif run.action == "submit":
            run.other.append(
                lib.chatllm_asr_submit(run.machine.handle, SOUND, 1600, ffi.NULL, on_nothing, ffi.NULL)
            )
    elif event.kind == lib.CHATLLM_ASR_EVENT_STEP:
        run.steps += 1
        assert run.live
    elif event.kind == lib.CHATLLM_ASR_EVENT_END:
        run.ends += 1
        run.status, run.finish = event.status, event.timings.finish
        run.message = ffi.string(event.message).decode()
        run.ended.set()


@ffi.callback("void(void *, const chatllm_asr_event *)")
def on_nothing(user_data: Any, event: Any) -> None:
    pass


def elsewhere(call: Callable[[], Any], other: bool) -> Any:
    return POOL.submit(call).result() if other else call()


# Calls with an object and other arguments, whose answer for NULL and before the start is known.
def _calls() -> dict[str, Callable[[Any], int]]:
    place, shape, times = ffi.new("float **"), ffi.new("int64_t[2]"), ffi.new("double[4]")
    unit = ffi.new("char[]", b"a")
    units, ids = ffi.new("char *[]", [unit]), ffi.new("int32_t[]", 8)
    timings = ffi.new("chatllm_asr_timings *", {"size": ffi.sizeof("chatllm_asr_timings")})
    keep = (place, shape, times, unit, units, ids, timings)

    def matrix(function: Any, *more: Any) -> Callable[[Any], int]:
        def call(obj: Any) -> int:
            status = function(obj, SOUND, 9000, *more, keep[0], keep[1])
            if status == OK:
                assert keep[1][0] > 0
                lib.chatllm_asr_free(keep[0][0])
            return int(status)

        return call

    return {
        "run": lambda obj: lib.chatllm_asr_run(obj, SOUND, 9000, ffi.NULL),
        "text": lambda obj: lib.chatllm_user_input(obj, f"{{{{audio:{SAMPLE}}}}}零九".encode()),
        "continue": lambda obj: lib.chatllm_ai_continue(obj, b""),
        "message": lambda obj: lib.chatllm_user_input_multimedia_msg(obj),
        "cursor": lambda obj: lib.chatllm_set_cursor(obj, 0),
        "argument": lambda obj: lib.chatllm_set_additional_args(obj, b"language=auto"),
        "timings": lambda obj: lib.chatllm_asr_get_timings(obj, keep[6]),
        "log_mel": matrix(lib.chatllm_asr_log_mel),
        "encode": matrix(lib.chatllm_asr_encode, 0),
        "logits": matrix(lib.chatllm_asr_prefill_logits, ffi.NULL),
        "align": lambda obj: lib.chatllm_asr_align(obj, SOUND, 9000, keep[4], 1, 0, keep[2]),
        "prompt": lambda obj: min(0, lib.chatllm_asr_prompt_ids(obj, 9000, ffi.NULL, keep[5], 8)),
    }


CALLS = _calls()
# With a model: what a recognizer, and what an aligner answers.
ANSWERS = {
    "run": ((OK,), (ERROR, BAD_ARGUMENT, BAD_MODEL)),
    "text": ((OK,), (OK,)),
    "continue": ((OK, BAD_ARGUMENT, ERROR), (OK, ERROR, BAD_ARGUMENT, BAD_MODEL)),
    "message": ((BAD_ARGUMENT,), (BAD_ARGUMENT,)),
    "cursor": ((OK,), (OK,)),
    "argument": ((OK,), (OK,)),
    "timings": ((OK,), (OK,)),
    "log_mel": ((OK,), (OK,)),
    "encode": ((OK,), (OK,)),
    "logits": ((OK,), (OK, ERROR, BAD_ARGUMENT, BAD_MODEL)),
    "align": ((ERROR, BAD_ARGUMENT, BAD_MODEL), (OK,)),
    "prompt": ((OK,), (OK, ERROR, BAD_ARGUMENT, BAD_MODEL)),
}


class CContract(RuleBasedStateMachine):
    machines = Bundle("machines")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Machine] = []
        self.submitted: list[Utterance] = []

    # ---- objects ----

    @rule(target=machines)
    def create(self) -> Machine:
        machine = Machine(lib.chatllm_create())
        assert machine.handle != ffi.NULL
        self.open.append(machine)
        PRINTS[int(ffi.cast("intptr_t", machine.handle))] = machine
        return machine

    @rule(name=st.sampled_from(sorted(CALLS)), other=st.booleans())
    def call_with_null(self, name: str, other: bool) -> None:
        def call() -> None:
            assert CALLS[name](ffi.NULL) == BAD_ARGUMENT
            assert told(ffi.NULL) == "the object is NULL"

        elsewhere(call, other)

    @rule()
    def other_calls_with_null(self) -> None:
        null = ffi.NULL
        assert lib.chatllm_destroy(null) == lib.chatllm_start(null, null, null, null) == BAD_ARGUMENT
        assert lib.chatllm_text_tokenize(null, b"x") == lib.chatllm_get_cursor(null) == -1
        assert lib.chatllm_history_get_cursor(null) == lib.chatllm_history_set_cursor(null, 1) == -1
        assert lib.chatllm_get_token_vocab(null, null, null) == lib.chatllm_asr_model_info(null) == null
        assert lib.chatllm_asr_submit(null, SOUND, 9000, null, on_event, null) == null
        assert lib.chatllm_asr_last_status() == BAD_ARGUMENT
        assert lib.chatllm_asr_feed(null, SOUND, 10, 0) == BAD_ARGUMENT
        for function in (lib.chatllm_abort_generation, lib.chatllm_show_statistics, lib.chatllm_asr_cancel):
            function(null)
        for function in (lib.chatllm_append_param, lib.chatllm_restart, lib.chatllm_set_ai_prefix):
            function(null, null)
        lib.chatllm_asr_release(null)
        lib.chatllm_asr_free(null)

    @rule(machine=machines, words=st.sampled_from((
        ("-n", "1"), ("--max_new_tokens", "2"), ("--batch", "2"), ("--set", "language", "Chinese"), ("--nonsense",),
        ("--batch", "0"), ("--multimedia_file_tags", "{{", "}}"), ("-m", "/nowhere"),
    )))  # fmt: skip
    def add_words(self, machine: Machine, words: tuple[str, ...]) -> None:
        if machine in self.open:
            for word in words:
                lib.chatllm_append_param(machine.handle, word.encode())
            lib.chatllm_append_param(machine.handle, ffi.NULL)  # is none
            machine.words += words

    @rule(
        machine=machines,
        purpose=st.sampled_from((None, "ASR", "ASR", "ForcedAligner")),
        later=st.booleans(),
        other=st.booleans(),
    )
    def start(self, machine: Machine, purpose: str | None, later: bool, other: bool) -> None:
        if machine not in self.open:
            return
        if purpose is not None:
            path = hub.built_in_model() if purpose == "ASR" else hub.built_in_aligner()
            for word in (
                "--multimedia_file_tags",
                "{{",
                "}}",
                "--max_new_tokens",
                "3",
                "-m",
                os.fspath(path),
            ):
                lib.chatllm_append_param(machine.handle, word.encode())
                machine.words.append(word)
        arguments = (machine.handle, on_print, on_end, machine.handle)
        if later:
            status = elsewhere(lambda: lib.chatllm_async_start(*arguments), other)
            assert status == OK
            while (status := lib.chatllm_get_async_result_int(machine.handle)) == INT_MIN:
                time.sleep(0.001)
        else:
            status = elsewhere(lambda: lib.chatllm_start(*arguments), other)
        if (
            machine.had_runs and status == BUSY
        ):  # one that was released, or submitted by a callback, may go on
            return
        models = [after for word, after in zip(machine.words, machine.words[1:]) if word == "-m"]
        if "--nonsense" in machine.words or "0" in machine.words or not models:
            assert status == BAD_ARGUMENT, told(machine.handle)
            return  # what was loaded stays
        if models[-1] == "/nowhere":
            assert status == BAD_MODEL
            assert "/nowhere" in told(machine.handle)
            machine.purpose = None
            return
        assert status == OK, told(machine.handle)
        machine.purpose = "ASR" if "aligner" not in models[-1] else "ForcedAligner"
        assert lib.PRINTLN_MODEL_INFO in machine.printed

    @rule(machine=machines, name=st.sampled_from(sorted(CALLS)), other=st.booleans())
    def call(self, machine: Machine, name: str, other: bool) -> None:
        if machine not in self.open:
            return
        ends = machine.ends
        status = elsewhere(lambda: CALLS[name](machine.handle), other)
        if machine.purpose is None:
            assert status == NOT_STARTED, (name, told(machine.handle))
        else:
            allowed = ANSWERS[name][machine.purpose == "ForcedAligner"]
            assert status in allowed, (name, machine.purpose, told(machine.handle))
            if name in ("run", "text", "message"):
                assert machine.ends == ends + 1
        assert status == OK or told(machine.handle)
        assert set(machine.in_callback) <= {BUSY}

    @rule(machine=machines, pcm=st.sampled_from(("none", "nan", "negative", "empty")))
    def run_what_is_no_audio(self, machine: Machine, pcm: str) -> None:
        if machine not in self.open:
            return
        samples = {"none": ffi.NULL, "nan": NONSENSE}.get(pcm, SOUND)
        count = {"negative": -5, "empty": 0}.get(pcm, 9000)
        status = lib.chatllm_asr_run(machine.handle, samples, count, ffi.NULL)
        if machine.purpose is None:
            assert status == NOT_STARTED
        else:
            assert status in (BAD_ARGUMENT, BAD_AUDIO, BAD_MODEL, ERROR)
        assert told(machine.handle)

    @rule(
        machine=machines,
        text=st.sampled_from(
            (None, b"", b"x", b"language=Klingon", b"=", b"\xff\xfe", b"{{", b"{{audio:/x}}")
        ),
    )
    def say_nonsense(self, machine: Machine, text: bytes | None) -> None:
        if machine not in self.open:
            return
        given = ffi.NULL if text is None else text
        for function in (lib.chatllm_set_additional_args, lib.chatllm_user_input):
            status = function(machine.handle, given)
            if status == OK and text == b"language=Klingon" and machine.purpose == "ForcedAligner":
                continue  # which does not look at it
            assert status in (BAD_ARGUMENT, BAD_AUDIO, ERROR, NOT_STARTED), (text, status)
            assert told(machine.handle)
        assert lib.chatllm_multimedia_msg_append(machine.handle, b"image", b"AA") == BAD_ARGUMENT
        assert lib.chatllm_embedding(machine.handle, b"x", 0) == ERROR

    @rule(machine=machines, position=st.integers(-3, 5))
    def move_history(self, machine: Machine, position: int) -> None:
        if machine not in self.open:
            return
        before = lib.chatllm_history_get_cursor(machine.handle)
        after = lib.chatllm_history_set_cursor(machine.handle, position)
        if machine.purpose is None:
            assert before == after == -1
        else:
            assert 0 <= before <= 2
            assert after == lib.chatllm_history_get_cursor(machine.handle)
            assert after == before if position >= before else after <= before

    @rule(machine=machines, other=st.booleans())
    def abort_nothing(self, machine: Machine, other: bool) -> None:
        if machine in self.open:
            elsewhere(lambda: lib.chatllm_abort_generation(machine.handle), other)

    @rule(machine=machines, other=st.booleans())
    def destroy(self, machine: Machine, other: bool) -> None:
        if machine not in self.open:
            return
        mine = [run for run in self.submitted if run.machine is machine]
        assert elsewhere(lambda: lib.chatllm_destroy(machine.handle), other) == OK
        self.open.remove(machine)
        for run in mine:
            assert run.ends == 1 or run.released

    # ---- utterances ----

    @rule(
        target=runs,
        machine=machines,
        live=st.booleans(),
        count=st.sampled_from((0, 100, 9000, 40000)),
        action=st.sampled_from(("", "cancel", "destroy", "feed", "submit")),
        other=st.booleans(),
    )
    def submit(self, machine: Machine, live: bool, count: int, action: str, other: bool) -> Utterance:
        run = Utterance(machine, live, action=action, released=True)
        if machine not in self.open:
            return run
        key = len(EVENTS) + 1
        EVENTS[key] = run
        run.released = False
        options = ffi.new(
            "chatllm_asr_options *",
            {"size": ffi.sizeof("chatllm_asr_options"), "max_new_tokens": 3, "live": live},
        )
        place = ffi.cast("void *", key)
        assert lib.chatllm_asr_submit(machine.handle, SOUND, count, options, ffi.NULL, place) == ffi.NULL
        assert lib.chatllm_asr_last_status() == BAD_ARGUMENT

        def call() -> None:
            run.handle = lib.chatllm_asr_submit(machine.handle, SOUND, count, options, on_event, place)
            if machine.purpose is None:
                assert lib.chatllm_asr_last_status() == NOT_STARTED
                assert told(ffi.NULL)

        elsewhere(call, other)
        if machine.purpose is None:
            assert run.handle == ffi.NULL
            run.released = True
        elif run.handle == ffi.NULL:
            run.released = True
            assert machine.purpose == "ForcedAligner"
        else:
            self.submitted.append(run)
            machine.had_runs = True
        return run

    @rule(run=runs, last=st.booleans(), count=st.sampled_from((-1, 0, 700, 9000)), other=st.booleans())
    def feed(self, run: Utterance, last: bool, count: int, other: bool) -> None:
        if run.released:
            return
        over = (
            run.ended.is_set()
            or run.fed_last
            or not run.live
            or run.cancelled
            or run.machine not in self.open
        )
        status = elsewhere(lambda: lib.chatllm_asr_feed(run.handle, SOUND, count, last), other)
        if over or count < 0:
            assert status in (OK, BAD_ARGUMENT, ERROR, NOT_STARTED) if run.cancelled else status != OK
        elif status == OK:
            run.fed_last = run.fed_last or last
        else:
            assert run.ended.is_set(), told(ffi.NULL)

    @rule(run=runs, times=st.integers(1, 3), other=st.booleans())
    def cancel(self, run: Utterance, times: int, other: bool) -> None:
        if run.released:
            return
        run.cancelled = True
        for _ in range(times):
            elsewhere(lambda: lib.chatllm_asr_cancel(run.handle), other)

    @rule(run=runs)
    def wait(self, run: Utterance) -> None:
        if run.released or (run.live and not (run.fed_last or run.cancelled) and run.machine in self.open):
            return
        assert run.ended.wait(60)
        self.check_end(run)

    def check_end(self, run: Utterance) -> None:
        assert run.ends == 1
        assert run.begins <= 1
        assert (run.status == OK) == (run.message == "")
        gone = run.machine not in self.open
        if run.finish == lib.CHATLLM_ASR_FINISH_ABORT:
            assert run.cancelled or gone

    @rule(run=runs, other=st.booleans())
    def release(self, run: Utterance, other: bool) -> None:
        if run.released:
            return
        elsewhere(lambda: lib.chatllm_asr_release(run.handle), other)
        self.forget(run)

    def forget(self, run: Utterance) -> None:
        run.released = True
        self.submitted.remove(run)
        assert run.ends <= 1

    def teardown(self) -> None:
        for machine in list(self.open):
            self.destroy(machine, False)
        for run in list(self.submitted):  # handles outlive their objects
            self.check_end(run)
            assert lib.chatllm_asr_feed(run.handle, SOUND, 10, 0) != OK
            lib.chatllm_asr_cancel(run.handle)
            lib.chatllm_asr_release(run.handle)
            self.forget(run)
        for run in EVENTS.values():
            assert run.late == 0
            for other in run.other:
                lib.chatllm_asr_release(other)
            run.other.clear()


TestCContract = CContract.TestCase
TestCContract.settings = LIMITS


# ---- Python


TONE = (0.1 * np.sin(np.arange(16000) * 0.2)).astype(np.float32)
LONG = np.tile(TONE, 30)


@dataclass(eq=False)
class Opened:
    """A model, and what must hold of it."""

    model: Model
    closings: int = 0
    called_back: bool = False  # a callback may have stopped things at any time
    works: list[Work] = field(default_factory=list)


@dataclass(eq=False)
class Work:
    """A stream, a live session or an iterator that was begun on a model."""

    of: Opened
    thing: Any
    kind: str
    closings: int  # of the model when it was begun
    ended: bool = False  # by a call of its own


class PythonContract(RuleBasedStateMachine):
    models = Bundle("models")
    works = Bundle("works")

    def __init__(self) -> None:
        super().__init__()
        self.aligner: Aligner | None = None

    def teardown(self) -> None:
        if self.aligner is not None:
            self.aligner.close()
        gc.collect()

    @rule(target=models, batch=st.integers(1, 3))
    def open(self, batch: int) -> Opened:
        return Opened(Model(hub.built_in_model(), batch=batch))

    @rule(opened=models, other=st.booleans())
    def close(self, opened: Opened, other: bool) -> None:
        elsewhere(opened.model.close, other)
        assert opened.model.closed
        opened.closings += 1

    @rule(opened=models, other=st.booleans())
    def reinit(self, opened: Opened, other: bool) -> None:
        elsewhere(opened.model.reinit, other)
        assert not opened.model.closed or opened.called_back
        opened.closings += 1

    @rule(opened=models, other=st.booleans())
    def abort(self, opened: Opened, other: bool) -> None:
        elsewhere(opened.model.abort, other)
        for work in opened.works:
            work.ended = True

    @rule(opened=models, other=st.booleans())
    def transcribe(self, opened: Opened, other: bool) -> None:
        def call() -> Any:
            try:
                return opened.model.transcribe(TONE, sample_rate=16000, max_new_tokens=3)
            except ModelClosedError:
                return None

        result = elsewhere(call, other)
        if result is None or not opened.called_back:
            assert (result is None) == opened.model.closed
            assert result is None or result.finish in ("stop", "length")

    @rule(
        opened=models, what=st.sampled_from((None, b"", "nowhere.wav", TONE * np.nan, [1, 2], object(), -1))
    )
    def transcribe_what_is_no_audio(self, opened: Opened, what: Any) -> None:
        with pytest.raises(Qwen3AsrError):
            opened.model.transcribe(what, sample_rate=16000)

    @rule(
        opened=models,
        name=st.sampled_from(
            ("language", "segments", "attention", "max_new_tokens", "carry", "script", "channel")
        ),
    )
    def transcribe_with_nonsense(self, opened: Opened, name: str) -> None:
        with pytest.raises(Qwen3AsrError):
            opened.model.transcribe(TONE, sample_rate=16000, **{name: "\x00 nonsense"})

    @rule(opened=models)
    def ask_what_it_is(self, opened: Opened) -> None:
        try:
            assert opened.model.info["purpose"] == "ASR"
        except ModelClosedError:
            assert opened.model.closed

    @rule(
        target=works,
        opened=models,
        kind=st.sampled_from(("stream", "words", "live", "many")),
        callback=st.sampled_from((None, "abort", "transcribe", "close", "raise")),
    )
    def begin(self, opened: Opened, kind: str, callback: str | None) -> Work | None:
        options: dict[str, Any] = {"max_new_tokens": 3}
        model = opened.model

        def called_back(_: Any) -> None:
            if callback == "raise":
                raise KeyError("of the callback")
            if callback == "abort":
                model.abort()
            elif callback == "transcribe" and not model.closed:
                with contextlib.suppress(ModelClosedError):
                    model.transcribe(TONE, sample_rate=16000, max_new_tokens=1)
            elif callback == "close":
                model.close()

        try:
            if kind == "live":
                thing: Any = model.live(on_update=None if callback is None else called_back)
                opened.called_back |= callback in ("abort", "close")
            elif kind == "many":
                thing = model.transcribe_many([(TONE, 16000)] * 5, **options)
            else:
                more = {"words": True, "aligner": self._aligner()} if kind == "words" else {}
                thing = model.stream(
                    LONG, sample_rate=16000, segments="fixed", chunk_seconds=5, **options, **more
                )
        except ModelClosedError:
            assert model.closed
            return None
        assert not model.closed or kind == "many" or opened.called_back  # many begin when they are read
        work = Work(opened, thing, kind, opened.closings)
        opened.works.append(work)
        return work

    def _aligner(self) -> Aligner:
        if self.aligner is None or self.aligner.closed:
            self.aligner = Aligner(hub.built_in_aligner(), lazy=True)
        return self.aligner

    @rule()
    def close_the_aligner(self) -> None:
        if self.aligner is not None:
            self.aligner.close()
            self.aligner.close()

    @rule(work=works, other=st.booleans())
    def read(self, work: Work | None, other: bool) -> None:
        if work is None or work.kind == "live":
            return
        self._tried(work, lambda: next(work.thing, None), other)

    @rule(work=works, times=st.integers(1, 3), last=st.booleans(), other=st.booleans())
    def feed(self, work: Work | None, times: int, last: bool, other: bool) -> None:
        if work is None or work.kind != "live":
            return
        for _ in range(times):
            self._tried(work, lambda: work.thing.feed(TONE), other)
        if last:
            self.finish(work, other)

    @rule(work=works, other=st.booleans())
    def finish(self, work: Work | None, other: bool) -> None:
        if work is None or work.kind == "many":
            return
        result = self._tried(work, work.thing.finish, other)
        if result is not None:
            assert isinstance(result, Transcript)
        work.ended = True

    @rule(work=works, other=st.booleans())
    def stop(self, work: Work | None, other: bool) -> None:
        if work is None:
            return
        elsewhere(work.thing.close if work.kind == "many" else work.thing.abort, other)
        work.ended = True

    def _tried(self, work: Work, call: Callable[[], Any], other: bool) -> Any:
        """Does it; an error must be one of ours, or what the callback has raised, and have a reason."""

        def guarded() -> Any:
            try:
                return call()
            except KeyError as error:
                assert str(error) == "'of the callback'"
                assert work.kind == "live"
            except ModelClosedError:
                assert work.of.model.closed or work.closings < work.of.closings or self._aligner_is_closed()
            except Qwen3AsrError as error:
                assert str(error)
                assert work.kind == "live" or self._aligner_is_closed(), error
            return None

        return elsewhere(guarded, other)

    def _aligner_is_closed(self) -> bool:
        return self.aligner is not None and self.aligner.closed


TestPythonContract = PythonContract.TestCase
TestPythonContract.settings = LIMITS
