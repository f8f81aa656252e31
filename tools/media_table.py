#!/usr/bin/env python3
"""Which sound is read which way: container x codec x libsndfile, PyAV, ffmpeg.

    python tools/media_table.py                 # the table of docs/usage.md, in Markdown
    python tools/media_table.py m4a amr         # the rows whose container or codec holds one of these words
    python tools/media_table.py --memory 3      # peak of memory while 3 hours of m4a are read, and 3 minutes
    python tools/media_table.py --keep FOLDER   # leaves the files there

A program ``ffmpeg`` on the path makes the files: 2 s of 440 Hz, 1 s of silence, 2 s of 880 Hz, through an encoder that it
has (AMR, for which FFmpeg has none, is written here: frames of chance bits, which any decoder decodes). Each file is read
each way alone. A cell is the length in seconds that was read, when that and the tones in it are right; else what is wrong.
Ends with status 1 when the way that is used for a kind does not read it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qwen3asr_native import AudioError, audio, media

RATE = 16000
WAYS = ("libsndfile", "PyAV", "ffmpeg")
TONES = (440, 880)


class Kind(NamedTuple):
    """A container, what is in it, and what makes ffmpeg write it; no words: ``handmade`` does."""

    container: str
    codec: str
    words: str = ""
    suffix: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        codec = "".join(letter if letter.isalnum() else "-" for letter in self.codec)
        return f"{codec}.{self.suffix or self.container.split()[0]}"


_PICTURE = "-c:v mpeg4"  # with a video track
KINDS = (
    Kind("wav", "PCM 16", "-c:a pcm_s16le"),
    Kind("wav", "PCM 24", "-c:a pcm_s24le"),
    Kind("wav", "float 32", "-c:a pcm_f32le"),
    Kind("wav", "A-law", "-c:a pcm_alaw"),
    Kind("wav", "mu-law", "-c:a pcm_mulaw"),
    Kind("wav", "ADPCM (Microsoft)", "-c:a adpcm_ms"),
    Kind("wav", "ADPCM (IMA)", "-c:a adpcm_ima_wav"),
    Kind("wav", "GSM", "-c:a libgsm_ms -ar 8000"),
    Kind("wav", "MP3", "-c:a libmp3lame"),
    Kind("rf64", "PCM 16", "-c:a pcm_s16le -rf64 always -f wav", "rf64.wav"),
    Kind("w64", "PCM 16", "-c:a pcm_s16le"),
    Kind("aiff", "PCM 16", "-c:a pcm_s16be"),
    Kind("aiff", "mu-law (AIFC)", "-c:a pcm_mulaw"),
    Kind("au", "PCM 16", "-c:a pcm_s16be"),
    Kind("caf", "PCM 16", "-c:a pcm_s16le"),
    Kind("caf", "ALAC", "-c:a alac"),
    Kind("flac", "FLAC", "-c:a flac"),
    Kind("mp3", "MP3 constant rate", "-c:a libmp3lame -b:a 64k"),
    Kind("mp3", "MP3 variable rate", "-c:a libmp3lame -q:a 5"),
    Kind("mp3", "MP3 variable, no header", "-c:a libmp3lame -q:a 5 -write_xing 0 -id3v2_version 0"),
    Kind("mp2", "MP2", "-c:a mp2"),
    Kind("ogg", "Opus", "-c:a libopus"),
    Kind("ogg", "Vorbis", "-c:a libvorbis"),
    Kind("ogg", "FLAC", "-c:a flac"),
    Kind("ogg", "Speex", "-c:a libspeex"),
    Kind("m4a", "AAC", "-c:a aac"),
    Kind("m4a", "ALAC", "-c:a alac"),
    Kind("mp4", "AAC, fragmented", "-c:a aac -movflags frag_keyframe+empty_moov"),
    Kind("mp4", "AAC, MPEG-4 video", f"-c:a aac {_PICTURE}"),
    Kind("mp4", "Opus", "-c:a libopus -strict experimental"),
    Kind("mp4", "MP3", "-c:a libmp3lame -ar 44100"),
    Kind("mov", "AAC, MPEG-4 video", f"-c:a aac {_PICTURE}"),
    Kind("mov", "PCM 16", "-c:a pcm_s16le"),
    Kind("mkv", "AAC, two tracks, video", f"-c:a aac {_PICTURE} -map 0:v? -map 1:a -map 1:a"),
    Kind("mkv", "FLAC", "-c:a flac"),
    Kind("mka", "Opus", "-c:a libopus"),
    Kind("mkv", "AC-3", "-c:a ac3 -ar 48000"),
    Kind("mkv", "E-AC-3", "-c:a eac3 -ar 48000"),
    Kind("mkv", "DTS", "-c:a dca -strict experimental -ar 48000"),
    Kind("webm", "Opus", "-c:a libopus"),
    Kind("webm", "Vorbis", "-c:a libvorbis"),
    Kind("aac (ADTS)", "AAC", "-c:a aac -f adts", "aac"),
    Kind("ac3", "AC-3", "-c:a ac3 -ar 48000"),
    Kind("wma", "WMA 1", "-c:a wmav1 -ar 44100"),
    Kind("wma", "WMA 2", "-c:a wmav2 -ar 44100"),
    Kind("3gp", "AAC", "-c:a aac"),
    Kind("avi", "MP3, MPEG-4 video", f"-c:a libmp3lame {_PICTURE}"),
    Kind("flv", "AAC", "-c:a aac -ar 44100"),
    Kind("ts", "AAC", "-c:a aac -ar 48000"),
    Kind("ts", "MP2, MPEG-2 video", "-c:a mp2 -ar 48000 -c:v mpeg2video"),
    Kind("tta", "TTA", "-c:a tta"),
    Kind("wv", "WavPack", "-c:a wavpack"),
    Kind("amr", "AMR-NB"),
    Kind("awb", "AMR-WB"),
    Kind("3gp", "AMR-NB", "COPY amr"),
)
# Bytes at the begin, header of a frame, and bytes of a frame without it: 12.2 and 23.85 kbit/s.
AMR = {"amr": (b"#!AMR\n", 0x3C, 31), "awb": (b"#!AMR-WB\n", 0x44, 60)}


def tones() -> np.ndarray:
    """Five seconds [n], float32 at 16 kHz."""
    time = np.arange(2 * RATE) / RATE
    first, second = (0.3 * np.sin(2 * np.pi * hertz * time) for hertz in TONES)
    return np.concatenate([first, np.zeros(RATE), second]).astype(np.float32)


def handmade(container: str) -> bytes:
    """Five seconds of AMR: 250 frames of chance bits."""
    magic, header, size = AMR[container]
    chance = random.Random(1)
    frames = (bytes([header]) + bytes(chance.randrange(256) for _ in range(size)) for _ in range(250))
    return magic + b"".join(frames)


def make(kind: Kind, folder: Path) -> Path:
    """The file. Raises ``subprocess.CalledProcessError`` when this ffmpeg cannot write it."""
    path = folder / kind.name
    if not kind.words:
        path.write_bytes(handmade(kind.container))
        return path
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error"]
    if kind.words.startswith("COPY"):
        source = folder / "source.amr"
        source.write_bytes(handmade(kind.words.split()[1]))
        command += ["-i", str(source), "-c", "copy"]
    else:
        sound = folder / "sound.wav"
        if not sound.exists():
            import soundfile

            soundfile.write(sound, tones(), RATE, "PCM_16")
        if "-c:v" in kind.words:
            command += ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=5"]
        command += ["-i", str(sound), "-ac", "1", *kind.words.split()]
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    return path


def read(path: Path, way: str) -> np.ndarray:
    """All of it at 16 kHz, by one way alone. Raises AudioError and ``media.Unreadable``."""
    found = media._av, media.way
    if way != "PyAV":
        media._av = lambda: None
    if way == "libsndfile":
        media.way = lambda: None
    try:
        if way == "libsndfile":
            return np.concatenate(list(audio.blocks(path)))
        with path.open("rb") as file:
            decoded = media.decode(file, str(path), path.name, None, [])
            mono = ((rate, block.mean(axis=1, dtype=np.float32)) for rate, block in decoded)
            return np.concatenate(list(audio._to_16k(mono, path.name)))
    finally:
        media._av, media.way = found


def fault(pcm: np.ndarray, kind: Kind) -> str:
    """What is wrong with what was read; "" when it is right."""
    seconds = len(pcm) / RATE
    if abs(seconds - 5) > 0.15:  # ADPCM fills its last block, AAC has a delay
        return f"{seconds:.2f} s"
    if "AMR" in kind.codec:
        return "" if np.abs(pcm).max() > 0.01 else "silence"
    for begin, hertz in zip((0.5, 3.5), TONES):
        part = pcm[int(begin * RATE) : int((begin + 1) * RATE)]
        if abs(int(np.argmax(np.abs(np.fft.rfft(part)))) - hertz) > 3:
            return f"{hertz} Hz is missing at {begin} s"
    gap = pcm[int(2.2 * RATE) : int(2.8 * RATE)]
    return "" if np.sqrt(np.square(gap).mean()) < 0.02 else "sound in the gap"


def table(kinds: list[Kind], folder: Path) -> bool:
    """Prints it; whether each kind is read by what is used for it."""
    print(f"| container | sound | {' | '.join(WAYS)} | used |\n| --- | --- |{' --- |' * (len(WAYS) + 1)}")
    good = True
    for kind in kinds:
        try:
            path = make(kind, folder)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            print(f"| {kind.container} | {kind.codec} | not made: {' '.join(reason)} | | | |")
            continue
        cells = []
        for way in WAYS:
            try:
                pcm = read(path, way)
            except (AudioError, media.Unreadable):
                cells.append("-")
            else:
                cells.append(fault(pcm, kind) or f"{len(pcm) / RATE:.2f}")
        try:
            problem = fault(audio.load(path), kind)
        except AudioError as error:
            problem = str(error)
        used = "libsndfile" if cells[0] != "-" else "PyAV, else ffmpeg"
        good = good and not problem
        print(f"| {kind.container} | {kind.codec} | {' | '.join(cells)} | {problem or used} |", flush=True)
    return good


_MEASURE = """
import resource, sys
from qwen3asr_native import audio, media
if sys.argv[2] == "ffmpeg":
    media._av = lambda: None
samples = sum(len(block) for block in audio.blocks(sys.argv[1]))
print(samples / 16000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def memory(hours: float, folder: Path) -> None:
    """Prints peaks of memory for a short and a long file."""
    for name, seconds in (("short.m4a", 180), ("long.m4a", round(3600 * hours))):
        source = f"anoisesrc=color=pink:amplitude=0.1:sample_rate=16000:duration={seconds}"
        command = [
            "ffmpeg",
            "-nostdin",
            "-y",
            "-loglevel",
            "error",
            "-f",
            "lavfi",
            "-i",
            source,
            "-c:a",
            "aac",
        ]
        subprocess.run([*command, str(folder / name)], check=True)
        for way in WAYS[1:]:
            done = subprocess.run(
                [sys.executable, "-c", _MEASURE, str(folder / name), way], check=True, stdout=subprocess.PIPE
            )
            read_seconds, own, program = map(float, done.stdout.split())
            print(
                f"{name} by {way}: {read_seconds:,.1f} s read, peak {own:.1f} MB, of the program {program:.1f} MB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="see above")
    parser.add_argument("--memory", type=float, metavar="HOURS", help="see above")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="see above")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("there is no program ffmpeg on the path, which makes the files")
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if options.memory is not None:
            memory(options.memory, folder)
            return
        words = [word.lower() for word in options.words]
        kinds = [
            kind
            for kind in KINDS
            if not words or any(word in f"{kind.container} {kind.codec}".lower() for word in words)
        ]
        sys.exit(not table(kinds, folder))


if __name__ == "__main__":
    main()
