"""Training on a GPU, of the recognizer or of the aligner: recordings and features of whole batches are made on the device.

The losses are those of ``train.py`` and, for the aligner, those of :class:`AlignerTask`. The schedule follows the clock and
ends at the time given, or after a number of steps; meanwhile corpora that ``render`` is still writing are taken in as they appear.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import random
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checkpoint, prompts
from .features import HOP, SHORTEST
from .network import MiniAligner, MiniASR, audio_tokens
from .recordings import Clip, Plan, Recorder, Store
from .speech import SAMPLE_RATE
from .tokenizer import Tokenizer

NO_SPEECH_SHARE, STRUNG_SHARE, JOINED_SHARE = 0.05, 0.18, 0.08
# Recordings that begin or end within a sound, as those do that a program cuts out.
CUT_SHARE, CUT_SECONDS = 0.25, 0.06
# Short clips are drawn out further than others are: one long vowel is not two.
DRAWN_OUT_SHARE, DRAWN_OUT_SECONDS, DRAWN_OUT_HOPS = 0.25, 1.2, (64, 110)
LONGEST_SECONDS, SHORT_SECONDS = 13.0, 1.0
POOL_BATCHES = 24
LARGEST_BATCH = 384
EMA_DECAY, WARMUP_STEPS = 0.998, 150
HEAD_RATE = 5e-3
CONTEXTS = 2000
FIRST_CLIPS = 1500  # with these training begins


@dataclass
class Example:
    """A recording to be made of ``clips``: what ``Plan`` has of one clip."""

    clips: list[Clip]
    places: list[int]
    rate: float
    hop: int
    length: int
    silent: bool
    cuts: list[tuple[int, int]] | None = None  # samples that are missing at both ends of each clip

    @property
    def frames(self) -> int:
        return self.length // self.hop


class Examples:
    """Endless batches of examples of similar length; ``inbox`` brings the clips."""

    def __init__(
        self,
        inbox: Queue[tuple[str, list[Clip]]],
        shares: dict[str, float],
        frames: int,
        seed: int,
        aligner: bool,
    ) -> None:
        self.inbox, self.shares, self.frames, self.aligner = inbox, shares, frames, aligner
        self.rng = random.Random(seed)
        self.usable: dict[str, list[Clip]] = {}
        self.short: dict[str, list[Clip]] = {}

    def _receive(self) -> None:
        """Take in the clips that have come, and wait for some while there are none."""
        while not any(map(self.usable.get, self.shares)) or not self.inbox.empty():
            name, clips = self.inbox.get()
            clips = [clip for clip in clips if (clip.times if self.aligner else clip.recognizer)]
            self.usable.setdefault(name, []).extend(clips)
            for clip in clips:
                if clip.written and clip.count < SHORT_SECONDS * SAMPLE_RATE:
                    for kind in (clip.language, f"{clip.corpus}/{clip.language}"):
                        self.short.setdefault(kind, []).append(clip)

    def batches(self) -> Iterator[list[Example]]:
        while True:
            self._receive()
            names = [name for name in self.shares if self.usable.get(name)]
            weights = [self.shares[name] for name in names]
            drawn = self.rng.choices(names, weights, k=POOL_BATCHES * LARGEST_BATCH // 2)
            pool = [self._example(self.rng.choice(self.usable[name])) for name in drawn]
            pool.sort(key=lambda example: example.frames)
            batches: list[list[Example]] = [[]]
            for example in pool:
                # Sorted: the last one is the longest, to which all others are padded. Few different sizes: see network.py.
                fits = self.frames // (-(-example.frames // 100) * 100)
                fits = min(LARGEST_BATCH, fits // 8 * 8 if fits >= 8 else max(1, fits))
                if len(batches[-1]) >= fits:
                    batches.append([])
                batches[-1].append(example)
            self.rng.shuffle(batches)
            yield from batches

    def _example(self, clip: Clip) -> Example:
        rng = self.rng
        rate = rng.uniform(0.84, 1.18) if rng.random() < 0.5 else 1.0
        hop = rng.randint(*((140, 188) if self.aligner else (105, 195))) if rng.random() < 0.4 else HOP
        silent = not self.aligner and rng.random() < NO_SPEECH_SHARE
        clips, gaps = [clip], [0.0]
        chance = rng.random()
        if self.aligner:
            longest = rng.choice((8.0, 16.0, 28.0)) if chance < 0.45 else 0.0
            while sum(gaps) + sum(c.count for c in clips) / SAMPLE_RATE < longest and len(clips) < 8:
                group = self.usable[rng.choice(list(self.usable))] or [clip]
                clips.append(rng.choice(group))
                gaps.append(rng.uniform(0.1, 1.2))
            while len(clips) > 1 and sum(gaps) + sum(c.count for c in clips) / SAMPLE_RATE > 27:
                clips.pop()
                gaps.pop()
        elif clip.written and chance < STRUNG_SHARE and clip.count < 1.5 * SAMPLE_RATE:
            gap = rng.choice((0.0, 0.05, 0.2, 0.35))
            kind = self.short.get(f"{clip.corpus}/{clip.language}" if rng.random() < 0.7 else clip.language)
            for _ in range(rng.randint(1, 6)):
                clips.append(rng.choice(kind or [clip]))
                gaps.append(gap * rng.uniform(0.3, 1.7))
        elif clip.written and chance < STRUNG_SHARE + JOINED_SHARE:
            name = rng.choice(list(self.usable))
            second = rng.choice(self.usable[name] or [clip])
            fits = second.count + clip.count < (LONGEST_SECONDS - 2) * SAMPLE_RATE
            if fits and second.written and second.language == clip.language:
                clips, gaps = [clip, second], [0.0, rng.uniform(0.2, 1.2)]
        short = sum(c.count for c in clips) < DRAWN_OUT_SECONDS * SAMPLE_RATE
        if not self.aligner and clip.written and short and rng.random() < DRAWN_OUT_SHARE:
            hop = rng.randint(*DRAWN_OUT_HOPS)
        before, after = (min(1.0, rng.expovariate(5)) if rng.random() < 0.8 else 0.02 for _ in range(2))
        at, places = before * SAMPLE_RATE, []
        for clip, gap in zip(clips, gaps):
            at += gap * SAMPLE_RATE
            places.append(int(at))
            at += clip.count / rate
        length = max(SHORTEST, int(at + after * SAMPLE_RATE))
        cuts = None
        if not self.aligner and rng.random() < CUT_SHARE:
            cuts = [self._cut(clip) for clip in clips]
        return Example(clips, places, rate, hop, length, silent, cuts)

    def _cut(self, clip: Clip) -> tuple[int, int]:
        most = min(CUT_SECONDS * SAMPLE_RATE, 0.12 * clip.count)
        first, last = (int(self.rng.uniform(0, most)) for _ in range(2))
        return first, last


def plan(batch: list[Example]) -> Plan:
    most = max(len(example.clips) for example in batch)
    starts, counts, places = (np.zeros((most, len(batch)), np.int64) for _ in range(3))
    for row, example in enumerate(batch):
        cuts = example.cuts or [(0, 0)] * len(example.clips)
        for k, (clip, place, (first, last)) in enumerate(zip(example.clips, example.places, cuts)):
            starts[k, row], counts[k, row] = clip.start + first, clip.count - first - last
            places[k, row] = place + first
    return Plan(
        starts,
        counts,
        places,
        np.array([example.rate for example in batch]),
        np.array([example.hop for example in batch], np.int64),
        np.array([example.length for example in batch], np.int64),
        np.array([row for row, example in enumerate(batch) if example.silent], np.int64),
    )


def _padded(sequences: list[list[int]], value: int) -> np.ndarray:
    width = -(-max(map(len, sequences)) // 16) * 16
    array = np.full((len(sequences), width), value, np.int64)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
    return array


class RecognizerTask:
    """Cross-entropy of the answer and CTC loss of the encoder, as in ``train.py``."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.config = checkpoint.create(directory)
        self.tokenizer = Tokenizer(directory)
        self.network: MiniASR = MiniASR(self.config["thinker_config"])
        text = self.config["thinker_config"]["text_config"]
        self.blank = text["vocab_size"]
        self.heads = nn.ModuleDict({"ctc": nn.Linear(text["hidden_size"], self.blank + 1)})
        self.rng = random.Random(seed)
        encode = self.tokenizer.encode
        contexts = ["", *(prompts.random_context(self.rng) for _ in range(CONTEXTS))]
        self.before = [encode(prompts.before_audio(context)) for context in contexts]
        self.after = {name: encode(prompts.after_audio(name)) for name in (None, "Chinese", "English")}
        self.heading = {name: encode(f"language {name}<asr_text>") for name in ("Chinese", "English", "None")}
        self.end, self.audio = encode("<|im_end|>"), self.network.audio_token_id
        self._tokens: dict[str, list[int]] = {}

    def _encoded(self, text: str) -> list[int]:
        if text not in self._tokens:
            self._tokens[text] = self.tokenizer.encode(text)
        return self._tokens[text]

    def prepare(self, batch: list[Example]) -> tuple[Plan, dict[str, np.ndarray]]:
        """The plan and the arrays that :meth:`losses` needs."""
        recording = plan(batch)
        width = -(-max(recording.frames) // 100) * 13
        ids, rows, wanted, labels, targets = [], [], [], [], []
        for row, (example, frames) in enumerate(zip(batch, recording.frames)):
            language = example.clips[0].language
            written: list[int] = []
            if not example.silent:
                for number, clip in enumerate(example.clips):
                    space = " " if number and clip.written and language == "English" else ""
                    written += self._encoded(space + clip.written)
            spoken = language if written else "None"
            forced = None
            if self.rng.random() < 0.3:
                forced = spoken if written else self.rng.choice(("Chinese", "English"))
            before = self.before[self.rng.randrange(len(self.before)) if self.rng.random() < 0.25 else 0]
            length = audio_tokens(frames)
            question = [*before, *[self.audio] * length, *self.after[forced]]
            reply = [*([] if forced else self.heading[spoken]), *written, *self.end]
            sequence = question + reply
            ids.append(sequence[:-1])
            rows.append(
                [-1] * len(before)
                + list(range(row * width, row * width + length))
                + [-1] * (len(sequence) - 1 - len(before) - length)
            )
            wanted.append(range(len(question) - 1, len(sequence) - 1))
            labels += reply
            targets.append(written)
        padded = _padded(ids, 0)
        places = [row * padded.shape[1] + place for row, span in enumerate(wanted) for place in span]
        return recording, {
            "ids": padded,
            "rows": _padded(rows, -1),
            "places": np.array(places, np.int64),
            "labels": np.array(labels, np.int64),
            "targets": np.array([token for target in targets for token in target], np.int64),
            "target_lengths": np.array([len(target) for target in targets], np.int64),
            "lengths": np.array([audio_tokens(frames) for frames in recording.frames], np.int64),
        }

    def losses(self, features: Tensor, frames: list[int], arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(features.device.type, torch.bfloat16):
            audio, _ = self.network.audio_tower.encode(features, frames)
            audio = audio.float()
            hidden = self.network.model(self.network.embed_at(arrays["ids"], audio, arrays["rows"]))
        hidden = hidden.float().flatten(0, 1)[arrays["places"]]
        cross_entropy = F.cross_entropy(self.network.logits(hidden), arrays["labels"], label_smoothing=0.02)
        scores = F.log_softmax(self.heads["ctc"](audio), -1).transpose(0, 1)
        lengths, target_lengths = arrays["lengths"], arrays["target_lengths"]
        ctc = F.ctc_loss(
            scores,
            arrays["targets"],
            lengths,
            target_lengths,
            self.blank,
            reduction="none",
            zero_infinity=True,
        )
        usual = torch.where(target_lengths > 0, target_lengths, (lengths + 3) // 4)
        return {"cross-entropy": cross_entropy, "ctc": (ctc / usual.to(ctc.device)).mean()}


class AlignerTask:
    """Cross-entropy of the class of time at each ``<timestamp>``, with two helpers that make alignment appear soon.

    One: every position of audio in the decoder has to know its own time, through the same matrix; a timestamp then has only to
    find its position. Two: the encoder has to say in which of its outputs a unit begins or ends.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.config = checkpoint.create(directory, aligner=True)
        self.tokenizer = Tokenizer(directory)
        self.network: MiniASR = MiniAligner(self.config["thinker_config"])
        self.heads = nn.ModuleDict(
            {"edges": nn.Linear(self.config["thinker_config"]["text_config"]["hidden_size"], 2)}
        )
        self.rng = random.Random(seed)
        encode = self.tokenizer.encode
        self.begin, self.after = encode("<|audio_start|>"), encode("<|audio_end|>")
        self.stamp, self.audio = encode(checkpoint.TIMESTAMP), self.network.audio_token_id
        self.segment = checkpoint.SEGMENT_MILLISECONDS / 1000
        self._tokens: dict[str, list[int]] = {}

    def _encoded(self, unit: str) -> list[int]:
        if unit not in self._tokens:
            self._tokens[unit] = self.tokenizer.encode(unit)
        return self._tokens[unit]

    def prepare(self, batch: list[Example]) -> tuple[Plan, dict[str, np.ndarray]]:
        recording = plan(batch)
        width = -(-max(recording.frames) // 100) * 13
        ids, rows, stamps, bins, audio_places, audio_bins = [], [], [], [], [], []
        edges = np.zeros((len(batch), width, 2), np.float32)
        real = np.zeros((len(batch), width), np.float32)
        for row, (example, frames) in enumerate(zip(batch, recording.frames)):
            length = audio_tokens(frames)
            real[row, :length] = 1
            sequence = [*self.begin, *[self.audio] * length, *self.after]
            places = []
            for clip, place in zip(example.clips, example.places):
                for unit, *times in clip.times:
                    sequence += [*self._encoded(unit), *self.stamp, *self.stamp]
                    places += [len(sequence) - 2, len(sequence) - 1]
                    for edge, at in enumerate(times):
                        # Frames are 10 ms of the recording that the model hears, whatever their distance was.
                        seconds = (place + at * SAMPLE_RATE / example.rate) / example.hop / 100
                        bins.append(min(checkpoint.TIME_CLASSES - 1, max(0, round(seconds / self.segment))))
                        edges[row, min(length - 1, int(seconds * 13)), edge] = 1
            ids.append(sequence)
            rows.append([-1, *range(row * width, row * width + length), *[-1] * (len(sequence) - 1 - length)])
            stamps.append(places)
            for token in self.rng.sample(range(length), min(length, 24)):
                audio_places.append((row, 1 + token))
                audio_bins.append(min(checkpoint.TIME_CLASSES - 1, round((token + 0.5) / 13 / self.segment)))
        padded = _padded(ids, 0)
        width = padded.shape[1]
        return recording, {
            "ids": padded,
            "rows": _padded(rows, -1),
            "stamps": np.array(
                [row * width + p for row, group in enumerate(stamps) for p in group], np.int64
            ),
            "bins": np.array(bins, np.int64),
            "audio_places": np.array([row * width + p for row, p in audio_places], np.int64),
            "audio_bins": np.array(audio_bins, np.int64),
            "edges": edges,
            "real": real,
        }

    def losses(self, features: Tensor, frames: list[int], arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(features.device.type, torch.bfloat16):
            audio, _ = self.network.audio_tower.encode(features, frames)
            audio = audio.float()
            hidden = self.network.model(self.network.embed_at(arrays["ids"], audio, arrays["rows"]))
        hidden = hidden.float().flatten(0, 1)
        scores = F.log_softmax(self.network.logits(hidden[arrays["stamps"]]), -1)
        bins, last = arrays["bins"], scores.shape[1] - 1
        # A neighbour is nearly right.
        stamps = sum(
            share * F.nll_loss(scores, (bins + shift).clamp(0, last))
            for share, shift in ((0.7, 0), (0.15, -1), (0.15, 1))
        )
        near = F.cross_entropy(self.network.logits(hidden[arrays["audio_places"]]), arrays["audio_bins"])
        weight = torch.tensor(4.0, device=audio.device)
        edges = F.binary_cross_entropy_with_logits(
            self.heads["edges"](audio), arrays["edges"], reduction="none", pos_weight=weight
        )
        edges = (edges.mean(-1) * arrays["real"]).sum() / arrays["real"].sum()
        with torch.no_grad():
            off = (scores.argmax(1) - bins).abs().float().mean() * checkpoint.SEGMENT_MILLISECONDS
        return {
            "times": torch.as_tensor(stamps),
            "own time": 0.3 * near,
            "edges": 0.5 * edges,
            "ms off (no loss)": off,
        }


def start_weights(path: Path, task: RecognizerTask | AlignerTask) -> None:
    """Give the task's network and heads the weights that ``path`` has of the same name and size.

    ``path`` is what this module has written, whose rows of embedding and CTC head go by the names of the tokens, or a GGMM
    file (``.bin``) of the same network, which has no heads: they first have to learn to read it (``heads_only``).
    """
    if path.suffix == ".bin":
        checkpoint.load_ggmm(path, task.network)
        return
    saved = torch.load(path, map_location="cpu", weights_only=True)
    names: dict[str, int] = task.tokenizer.names
    old: dict[str, int] = saved["tokens"]
    rows = [(names[name], place) for name, place in old.items() if name in names]
    new_rows, old_rows = (torch.tensor(column) for column in zip(*rows))
    for module, part in ((task.network, "network"), (task.heads, "heads")):
        state = module.state_dict()
        for name, value in saved.get(part, {}).items():
            value = value.float()
            if name == "model.embed_tokens.weight":
                state[name][new_rows] = value[old_rows]
            elif name.startswith("ctc.") and name in state:
                state[name][new_rows] = value[old_rows]
                state[name][-1] = value[-1]  # the blank
            elif name in state and state[name].shape == value.shape:
                state[name] = value
        module.load_state_dict(state)


def save(path: Path, task: RecognizerTask | AlignerTask, network: nn.Module, half: bool = False) -> None:
    """Write the weights of ``network`` and the task's heads; ``half``: in 16 bits."""
    kind = torch.float16 if half else torch.float32

    def weights(module: nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().to("cpu", kind) for name, value in module.state_dict().items()}

    part = path.with_suffix(".part")
    torch.save(
        {"network": weights(network), "heads": weights(task.heads), "tokens": task.tokenizer.names}, part
    )
    part.replace(path)


def _take_in(store: Store, folder: Path, until: float) -> None:
    """Add new corpora below ``folder`` to the store until it is full or the time is over."""
    seen: set[Path] = set()
    while time.time() < until:
        fresh = [index.parent for index in sorted(folder.glob("*/index.json")) if index.parent not in seen]
        seen.update(fresh)
        for directory in fresh:
            try:
                if not store.add(folder.name, directory):
                    print(f"{store.hours:.0f} hours: no more room", flush=True)
                    return
            except Exception:
                print(f"{directory} is left out", file=sys.stderr)
                traceback.print_exc()
        if not fresh:
            time.sleep(1)


def make_task(name: str, directory: Path, seed: int) -> RecognizerTask | AlignerTask:
    return RecognizerTask(directory, seed) if name == "recognizer" else AlignerTask(directory, seed)


def _plan(
    name: str, directory: Path, shares: dict[str, float], frames: int, seed: int, inbox: Queue, outbox: Queue
) -> None:
    """What a planning process does: the process that trains has no time for it."""
    torch.set_num_threads(1)
    task = make_task(name, directory, seed)
    for batch in Examples(inbox, shares, frames, seed, name == "aligner").batches():
        try:
            outbox.put(task.prepare(batch))
        except Exception:
            traceback.print_exc()


class Planners:
    """Processes that plan batches of the clips of ``store``."""

    def __init__(
        self,
        store: Store,
        name: str,
        directory: Path,
        shares: dict[str, float],
        frames: int,
        seed: int,
        count: int,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready: Queue[tuple[Plan, dict[str, np.ndarray]]] = context.Queue(4 * count)
        self._inboxes: list[Queue[tuple[str, list[Clip]]]] = [context.Queue() for _ in range(count)]
        self._processes = [
            context.Process(
                target=_plan,
                args=(
                    name,
                    directory.with_name(f"{directory.name}-{number}"),
                    shares,
                    frames,
                    seed + number,
                    inbox,
                    self.ready,
                ),
                daemon=True,
            )
            for number, inbox in enumerate(self._inboxes, 1)
        ]
        for process in self._processes:
            process.start()
        store.listen(self._send)

    def _send(self, name: str, clips: list[Clip]) -> None:
        for inbox in self._inboxes:
            inbox.put((name, clips))

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for inbox in self._inboxes:
            inbox.cancel_join_thread()  # nobody reads what is left; the end of this process would wait for it


def train(
    task: RecognizerTask | AlignerTask,
    store: Store,
    planned: Queue[tuple[Plan, dict[str, np.ndarray]]],
    out: Path,
    name: str,
    until: float,
    rate: float,
    seed: int,
    steps: int = 10**9,
    save_seconds: float = 60,
    heads_only: bool = False,
) -> None:
    """Train for ``steps``, or until the clock (``time.time``) shows ``until``; ``out/NAME.pt`` has the averaged weights.

    ``heads_only``: the network stays as it is.
    """
    device = store.samples.device
    network, heads = task.network.to(device).train(), task.heads.to(device)
    network.requires_grad_(not heads_only)
    average = copy.deepcopy(network).eval()
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        {"params": list(heads.parameters()), "weight_decay": 0.02},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
    recorder = Recorder(store, seed)
    on_host = ("lengths", "target_lengths")
    sums: dict[str, Tensor] = {}
    begun = saved = reported = time.time()
    half_saved = False
    step, counted, heard, failed = 0, 0, 0.0, 0
    while step < steps:
        now = time.time()
        progress = min(1.0, max((now - begun) / max(1e-6, until - begun), step / steps))
        if progress >= 1:
            break
        current = (
            rate
            * (1.0 if heads_only else min(1.0, (step + 1) / WARMUP_STEPS))
            * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        )
        for group in optimizer.param_groups:
            group["lr"] = current
        recording, arrays = planned.get()
        try:
            features = recorder.features(recording)
            tensors = {
                key: torch.from_numpy(value) if key in on_host else recorder.tensor(value)
                for key, value in arrays.items()
            }
            losses = task.losses(features, recording.frames, tensors)
            optimizer.zero_grad()
            torch.stack([value for key, value in losses.items() if "no loss" not in key]).sum().backward()
        except torch.cuda.OutOfMemoryError:
            failed += 1
            print(f"a batch of {len(recording.rates)} clips found no memory", flush=True)
            del recording
            torch.cuda.empty_cache()
            if failed > 50:
                raise
            continue
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step, counted = step + 1, counted + 1
        heard += float(recording.lengths.sum()) / SAMPLE_RATE
        decay = min(EMA_DECAY, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), parameters, 1 - decay)
        for key, value in losses.items():
            sums[key] = sums.get(key, 0) + value.detach()
        if now - reported > 10:
            means = ", ".join(f"{key} {float(value) / counted:.4f}" for key, value in sums.items())
            speed = counted / (time.time() - reported)
            line = f"{name} step {step}, {progress:.3f}: {means}; {speed:.1f} steps/s, {heard / 3600:.1f} hours heard"
            print(f"{line}, {store.hours:.1f} hours known, {planned.qsize()} planned", flush=True)
            sums, counted, reported = {}, 0, time.time()
        if now - saved > save_seconds:
            save(out / f"{name}.pt", task, average)
            saved = now
        if progress > 0.75 and not half_saved:
            save(out / f"{name}-75.pt", task, average, half=True)
            half_saved = True
    save(out / f"{name}.pt", task, average)
    if counted:
        print(", ".join(f"{key} {float(value) / counted:.4f}" for key, value in sums.items()))
    print(f"{name}: {step} steps in {time.time() - begun:.0f} s, {heard / 3600:.1f} hours heard", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.accelerated", description=__doc__)
    parser.add_argument("task", choices=("recognizer", "aligner"))
    parser.add_argument(
        "--corpora", nargs="*", default=[], metavar="FOLDER=SHARE", help="corpora that are ready"
    )
    parser.add_argument(
        "--watch", metavar="FOLDER=SHARE", help="folder in which corpora appear (models.mini.render)"
    )
    parser.add_argument(
        "--start", type=Path, help="weights to go on from, as this program writes them, or a GGMM file (.bin)"
    )
    parser.add_argument(
        "--heads-only",
        action="store_true",
        help=f"train what no file of a finished model has, for a run that starts from NAME.pt; --rate {HEAD_RATE:g} is good",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.pt")
    parser.add_argument("--until", type=float, help="seconds since 1970 at which training ends")
    parser.add_argument("--seconds", type=float, default=480, help="how long to train, without --until")
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=64_000, help="in a batch")
    parser.add_argument("--planners", type=int, default=2, help="processes that plan batches")
    parser.add_argument("--hours", type=float, default=100, help="room for this much audio on the device")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    until = options.until or time.time() + options.seconds
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    directory = options.out / f"{options.task}-checkpoint"
    task = make_task(options.task, directory, options.seed)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it looks for a kernel anew for every shape
    if options.start:
        try:
            start_weights(options.start, task)
        except Exception:
            print(f"{options.start} is not used", file=sys.stderr)
            traceback.print_exc()
    store = Store(torch.device(options.device), options.hours)
    pairs = [
        entry.rsplit("=", 1) for entry in (*options.corpora, *([options.watch] if options.watch else []))
    ]
    shares = {Path(folder).name: float(share) for folder, share in pairs}
    planners = Planners(
        store, options.task, directory, shares, options.frames, options.seed, options.planners
    )
    corpora = {Path(entry.rsplit("=", 1)[0]) for entry in options.corpora}
    for folder in sorted(corpora):
        try:
            store.add(folder.name, folder)
        except Exception:
            print(f"{folder} is left out", file=sys.stderr)
            traceback.print_exc()
    if options.watch:
        watched = Path(options.watch.rsplit("=", 1)[0])
        threading.Thread(target=_take_in, args=(store, watched, until), daemon=True).start()
        while len(store.clips) < FIRST_CLIPS and time.time() < until - 1:
            time.sleep(0.2)
    train(
        task,
        store,
        planners.ready,
        options.out,
        options.task,
        until,
        options.rate,
        options.seed,
        options.steps,
        heads_only=options.heads_only,
    )
    planners.close()


if __name__ == "__main__":
    main()
