"""Synthetic speech: espeak-ng voices, and the rooms, microphones and telephone lines between them and the model.

Voices are split for good: :data:`HELD_OUT_VARIANTS` and :data:`HELD_OUT_ACCENTS` are never used in training.
"""

from __future__ import annotations

import functools
import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from .ordinary import ESPEAK_VOICES
from .texts import Text

SAMPLE_RATE = 16_000
# The plain `cmn` voice reads pinyin tones as English numbers in some builds; the pinyin one speaks Mandarin in all.
CHINESE_VOICE = "cmn-latn-pinyin"
ACCENTS = ("en-us", "en-gb", "en-029", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
HELD_OUT_ACCENTS = ("en-gb-x-rp",)
VARIANTS = (
    *(
        "",
        "m1",
        "m2",
        "m3",
        "m4",
        "m5",
        "m7",
        "m8",
        "f1",
        "f2",
        "f3",
        "f5",
        "klatt",
        "klatt2",
        "klatt3",
        "klatt5",
    ),
    *(
        "klatt6",
        "adam",
        "Alex",
        "Alicia",
        "Andy",
        "Annie",
        "antonio",
        "aunty",
        "belinda",
        "benjamin",
        "boris",
    ),
    *(
        "caleb",
        "david",
        "Diogo",
        "ed",
        "edward",
        "edward2",
        "Gene",
        "Gene2",
        "gustave",
        "Henrique",
        "Hugo",
        "iven",
    ),
    *(
        "iven2",
        "iven3",
        "Jacky",
        "john",
        "kaukovalta",
        "linda",
        "marcelo",
        "Mario",
        "max",
        "michel",
        "miguel",
        "Mike",
    ),
    *(
        "norbert",
        "Nguyen",
        "pablo",
        "paul",
        "pedro",
        "quincy",
        "rob",
        "robert",
        "sandro",
        "shelby",
        "steph",
        "steph3",
    ),
    *("travis", "Tweaky", "zac", "anika", "grandpa", "iven4", "RicishayMax", "RicishayMax3", "Storm", "fast"),
)
HELD_OUT_VARIANTS = (
    *("f4", "m6", "klatt4", "Andrea", "michael", "Denis", "Lee", "victor", "steph2", "grandma", "Marco"),
    *("RicishayMax2",),
)


@dataclass(frozen=True)
class Variant:
    """An espeak-ng voice variant, and the directory of its data if that is not the installed one."""

    name: str
    home: str = ""


@dataclass(frozen=True)
class Voice:
    """Settings of one espeak-ng utterance: rate in words a minute, pitch 0-99, gap between words in 10 ms."""

    name: str
    rate: int
    pitch: int
    gap: int
    home: str = ""


def invent_voices(directory: Path, count: int, seed: int) -> tuple[Variant, ...]:
    """Write ``count`` made-up voice variants below ``directory``, where espeak-ng finds them, and return them.

    A few dozen ready-made voices are too few to learn that a vocal tract may have any shape; these draw every
    parameter of the variant file format at random.
    """
    original = espeak_data()
    variants = []
    for first in range(0, count, 100):  # espeak-ng refuses data with more than 350 voices in all
        home = directory / f"voices{first}"
        numbers = range(first, min(first + 100, count))
        variants += [Variant(name, str(home)) for name in write_voices(home, original, numbers, seed)]
    return tuple(variants)


def espeak_data() -> Path:
    """The folder of espeak-ng's data."""
    listing = subprocess.run(["espeak-ng", "--version"], capture_output=True, check=True, text=True).stdout
    return Path(listing.split("Data at:")[1].strip())


def write_voices(
    home: Path, original: Path, numbers: range, seed: int, ready_made: bool = False
) -> list[str]:
    """Data for espeak-ng in ``home``: links to the ``original`` and made-up voice variants, whose names are returned.

    With ``ready_made`` the original's variants are there as well.
    """
    data = home / "espeak-ng-data"
    folder = data / "voices" / "!v"
    folder.mkdir(parents=True, exist_ok=True)
    links = [entry for entry in original.iterdir() if entry.name != "voices"]
    links += (original / "voices" / "!v").iterdir() if ready_made else ()
    for entry in links:
        link = data / entry.relative_to(original)
        if not link.exists():
            link.symlink_to(entry)
    names = [f"invented{number}" for number in numbers]
    for name in names:
        (folder / name).write_text(_random_variant(name, random.Random(f"{seed}/{name}")), encoding="utf-8")
    return names


def _random_variant(name: str, rng: random.Random) -> str:
    """A voice variant file: formants (frequency, height, width in %), source, consonants, echo, rhythm."""
    lines = ["language variant", f"name {name}"]
    low = round(rng.triangular(45, 210, 85))
    lines.append(f"pitch {low} {round(low * rng.uniform(1.15, 1.7))}")
    tract = rng.triangular(0.84, 1.22, 1.0)
    for formant in range(9):
        frequency = 100 * tract * rng.gauss(1, 0.05)
        height, width = 100 * rng.triangular(0.6, 1.4, 1), 100 * rng.triangular(0.6, 1.6, 0.9)
        if formant > 5 and rng.random() < 0.3:
            height = 0
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f}")
    lines.append(f"voicing {rng.triangular(30, 200, 100):.0f}")
    lines.append(f"consonants {rng.triangular(45, 130, 95):.0f} {rng.triangular(40, 130, 95):.0f}")
    lines.append(f"flutter {rng.choice((0, 0, 1, 2, 4, 8, 20))}")
    lines.append(f"roughness {rng.choice((0, 0, 1, 2, 3, 5, 7))}")
    if rng.random() < 0.35:
        lines.append(f"echo {rng.randint(5, 180)} {rng.randint(5, 100)}")
    if rng.random() < 0.2:
        lines.append(f"klatt {rng.randint(1, 6)}")
    if rng.random() < 0.15:
        lines.append("breath " + " ".join(str(rng.randint(0, 8)) for _ in range(8)))
    if rng.random() < 0.4:
        bands = sorted(rng.sample(range(100, 4000, 50), 4))
        lines.append("tone " + " ".join(f"{band} {rng.randint(20, 255)}" for band in bands))
    if rng.random() < 0.25:
        scale = rng.uniform(0.3, 1.2)
        lengths = (182, 140, 220, 220, 220, 240, 260, 280)
        lines.append("stressLength " + " ".join(f"{scale * length:.0f}" for length in lengths))
    if rng.random() < 0.25:
        lines.append("stressAmp " + " ".join(str(rng.randint(14, 24)) for _ in range(8)))
    return "\n".join(lines) + "\n"


def random_voice(
    language: str, rng: random.Random, held_out: bool = False, invented: tuple[Variant, ...] = ()
) -> Voice:
    """A random training voice (every second one ``invented``), or one of those that training never hears."""
    if invented and rng.random() < 0.5:
        variant = rng.choice(invented)
    else:
        variant = Variant(rng.choice(HELD_OUT_VARIANTS if held_out else VARIANTS))
    if language == "Chinese":
        base = CHINESE_VOICE
    elif language == "English":
        base = rng.choice(HELD_OUT_ACCENTS if held_out else ACCENTS)
    else:
        base = ESPEAK_VOICES[language]
    return Voice(
        name=f"{base}+{variant.name}" if variant.name else base,
        rate=round(rng.triangular(95, 240, 150)),
        pitch=rng.randint(15, 90),
        gap=rng.choice((0, 0, 0, 0, 1, 2, 4, 8)),
        home=variant.home,
    )


def synthesize(text: Text, voice: Voice) -> np.ndarray:
    """Speak ``text``; return 16 kHz int16 samples [n] without the synthesizer's own leading and trailing silence."""
    command = ["espeak-ng", "-v", voice.name, "-s", str(voice.rate), "-p", str(voice.pitch)]
    if voice.home:
        command.append(f"--path={voice.home}")
    command += ["-g", str(voice.gap), "--stdout", text.spoken]
    wave = subprocess.run(command, capture_output=True, check=True).stdout
    return _trimmed(wave, f"espeak-ng voice {voice.name!r}", text)


FLITE_VOICES = ("awb", "kal", "kal16", "rms", "slt")


def synthesize_flite(text: Text, rng: random.Random) -> np.ndarray:
    """Speak English ``text`` with a random voice, tempo and pitch of flite; result as of :func:`synthesize`."""
    voice = rng.choice(FLITE_VOICES)
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.65, 1.5):.2f}"]
    if rng.random() < 0.7:
        command += ["--setf", f"int_f0_target_mean={rng.uniform(75, 230):.0f}"]
    if rng.random() < 0.5:
        command += ["--setf", f"int_f0_target_stddev={rng.uniform(3, 40):.0f}"]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, "-t", text.spoken, "-o", file.name], capture_output=True, check=True)
        wave = file.read()
    return _trimmed(wave, f"flite voice {voice!r}", text)


def _trimmed(wave: bytes, voice: str, text: Text) -> np.ndarray:
    """16 kHz int16 samples [n] of a WAV file of 16 bits with a plain header, without silence at both ends."""
    rate = int.from_bytes(wave[24:28], "little")
    samples = np.frombuffer(wave[44 : len(wave) // 2 * 2], np.int16)
    samples, _ = without_silence(samples, rate)
    if samples.size == 0:
        raise RuntimeError(f"{voice} produced no sound for {text.spoken!r}")
    return samples


def without_silence(samples: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """16 kHz int16 samples [n] of int16 ``samples`` without silence at both ends, and the seconds cut off before them."""
    loud = np.flatnonzero(np.abs(samples) > 50)
    if loud.size == 0:
        return samples[:0], 0.0
    kept = samples[loud[0] : loud[-1] + 1].astype(np.float32)
    resampled = soxr.resample(kept, rate, SAMPLE_RATE, quality="HQ")
    return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16), loud[0] / rate


def noise(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` float32 samples of unit-power noise: white, pink, brown, hum, crackle, tone or music."""
    time = np.arange(count, dtype=np.float32) / SAMPLE_RATE
    if kind == "hum":
        base = rng.choice((50.0, 60.0, 100.0, 120.0))
        samples = sum(
            rng.uniform(0, 1) * np.sin(2 * np.pi * (base * k * time + rng.random())) for k in range(1, 8)
        )
    elif kind == "tone":
        samples = np.sin(2 * np.pi * (rng.uniform(200, 3000) * time + rng.random()))
        samples = samples * (np.sin(2 * np.pi * rng.uniform(0.2, 3) * time) > rng.uniform(-1, 0.5))
    elif kind == MUSIC:
        samples = _music(count, rng)
    elif kind == "crackle":
        samples = rng.standard_normal(count) * (rng.random(count) < rng.uniform(0.0005, 0.02))
        samples = np.convolve(samples, np.exp(-np.arange(40) / rng.uniform(2, 15)))[:count]
    else:
        exponent = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        spectrum = np.fft.rfft(rng.standard_normal(count))
        spectrum /= np.maximum(np.arange(spectrum.size), 20.0) ** exponent
        samples = np.fft.irfft(spectrum, count)
    samples = np.asarray(samples, np.float32)
    return samples / max(float(np.sqrt(np.mean(samples**2))), 1e-9)


NOISES = ("white", "pink", "brown", "hum", "crackle", "tone")
MUSIC = "music"


def _music(count: int, rng: np.random.Generator) -> np.ndarray:
    """Chords and beats: notes with harmonics that begin together and fade, on a steady beat."""
    samples = np.zeros(count, np.float32)
    beat = int(SAMPLE_RATE * rng.uniform(0.2, 0.7))
    scale = 110 * 2 ** (rng.uniform(0, 1) + np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 19]) / 12)
    for start in range(0, count, beat):
        length = min(count - start, int(beat * rng.uniform(1, 4)))
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        fade = np.exp(-time * rng.uniform(1, 8)) * np.minimum(1, time * rng.uniform(20, 500))
        for frequency in rng.choice(scale, rng.integers(1, 5), replace=False):
            for harmonic in range(1, rng.integers(2, 8)):
                wave = np.sin(2 * np.pi * (frequency * harmonic * time + rng.random()))
                samples[start : start + length] += (fade * wave / harmonic).astype(np.float32)
        if rng.random() < 0.5:
            hit = rng.standard_normal(length).astype(np.float32) * np.exp(-time * rng.uniform(20, 80))
            samples[start : start + length] += hit.astype(np.float32)
    return samples


def speech_power(samples: np.ndarray) -> float:
    """Mean power of the loud part (above -30 dB of the peak)."""
    level = np.abs(samples)
    loud = samples[level > 0.03 * level.max(initial=1e-9)]
    return float(np.mean(loud**2)) if loud.size else 1e-6


def add_noise(samples: np.ndarray, snr_db: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Add noise at ``snr_db`` below the speech power of ``samples``."""
    return samples + noise(kind, samples.size, rng) * np.float32(
        np.sqrt(speech_power(samples)) * 10 ** (-snr_db / 20)
    )


def telephone(samples: np.ndarray, mu_law: bool) -> np.ndarray:
    """Band-limit to 300-3400 Hz as an 8 kHz telephone line does; optionally quantize as G.711 mu-law does."""
    from scipy import fft

    size = fft.next_fast_len(samples.size, real=True)
    spectrum = fft.rfft(samples.astype(np.float32), size)
    narrow = fft.irfft(spectrum * _telephone_gain(_frequencies(size)), size)[: samples.size]
    return _mu_law(narrow) if mu_law else narrow


def _frequencies(size: int) -> np.ndarray:
    return np.arange(size // 2 + 1, dtype=np.float32) * np.float32(SAMPLE_RATE / size)


def _telephone_gain(frequency: np.ndarray) -> np.ndarray:
    grid = np.linspace(0, SAMPLE_RATE / 2, 801, dtype=np.float32)
    gain = 1 / (1 + (200 / np.maximum(grid, 1)) ** 8) / (1 + (grid / 3500) ** 24)
    return np.interp(frequency, grid, gain).astype(np.float32)


def _mu_law(samples: np.ndarray) -> np.ndarray:
    peak = np.float32(max(float(np.max(np.abs(samples), initial=0)), 1e-9))
    compressed = np.log1p(255 / peak * np.abs(samples)) * np.float32(127 / np.log(256))
    expanded = np.expm1(np.rint(compressed) * np.float32(np.log(256) / 127)) * (peak / 255)
    return np.copysign(expanded, samples).astype(np.float32)


def _transmit(samples: np.ndarray, on_the_phone: bool, rng: np.random.Generator) -> np.ndarray:
    """A random smooth frequency response, sometimes a decaying reverberation, sometimes a telephone line."""
    from scipy import fft

    size = fft.next_fast_len(samples.size + 10_000, real=True)
    frequency = _frequencies(size)
    grid = np.linspace(0, SAMPLE_RATE / 2, 401)
    decibels = np.interp(np.log(grid + 30), np.log(np.geomspace(60, 8000, 7)), rng.normal(0, 4, 7))
    gain = np.interp(frequency, grid, 10 ** (decibels / 20)).astype(np.float32)
    if on_the_phone:
        gain *= _telephone_gain(frequency)
    spectrum = fft.rfft(samples, size) * gain
    if rng.random() < 0.4:
        spectrum *= fft.rfft(_room(rng), size)
    return fft.irfft(spectrum, size)[: samples.size]


# ffmpeg's name of a codec, its container, and options: rates and widths of telephones, messengers and old files.
CODECS: dict[str, tuple[str, ...]] = {
    "opus-8k": ("ogg", "-c:a", "libopus", "-b:a", "8k", "-application", "voip"),
    "opus-16k": ("ogg", "-c:a", "libopus", "-b:a", "16k"),
    "mp3-16k": ("mp3", "-c:a", "libmp3lame", "-b:a", "16k"),
    "mp3-32k": ("mp3", "-c:a", "libmp3lame", "-b:a", "32k"),
    "gsm": ("gsm", "-c:a", "libgsm", "-ar", "8000"),
    "speex-narrow": ("ogg", "-c:a", "libspeex", "-ar", "8000", "-compression_level", "5"),
    "g726": ("wav", "-c:a", "g726", "-ar", "8000", "-b:a", "24k"),
    "g722": ("wav", "-c:a", "g722"),
}


def through_codec(clips: Sequence[np.ndarray], codec: str) -> list[np.ndarray]:
    """int16 clips at 16 kHz, coded and decoded in one go; a fifth of a second of silence keeps them apart."""
    gap = np.zeros(SAMPLE_RATE // 5, np.int16)
    joined = np.concatenate([piece for clip in clips for piece in (clip, gap)])
    raw = ("-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1")
    container, *options = CODECS[codec]
    quiet = ("ffmpeg", "-v", "error", "-y")
    with tempfile.NamedTemporaryFile(suffix=f".{container}") as file:
        command = [*quiet, *raw, "-i", "-", *options, "-f", container, file.name]
        subprocess.run(command, input=joined.tobytes(), check=True, capture_output=True)
        command = [*quiet, "-i", file.name, *raw, "-"]
        decoded = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
    decoded = np.pad(decoded, (0, max(0, joined.size - decoded.size)))
    starts = np.cumsum([0, *(clip.size + gap.size for clip in clips[:-1])])
    return [decoded[start : start + clip.size + gap.size // 2] for start, clip in zip(starts, clips)]


def _room(rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a made-up room: the direct sound, a few early echoes, a decaying tail that gets duller."""
    length = int(SAMPLE_RATE * rng.triangular(0.05, 0.15, 0.6))
    time = np.arange(length, dtype=np.float32) / length
    tail = rng.standard_normal(length).astype(np.float32) * np.exp(-6.9 * time)
    dull = np.cumsum(tail) - np.cumsum(np.pad(tail, (8, 0))[:-8])  # mean of the last 8 samples, times 8
    tail = tail * (1 - time) + dull * time / 3
    response = tail * np.float32(rng.uniform(0.1, 0.6) / np.sqrt(np.sum(tail**2)))
    for _ in range(rng.integers(0, 8)):
        response[rng.integers(16, min(length, 640))] += np.float32(rng.normal(0, 0.25))
    response[0] = 1
    return response.astype(np.float32)


@functools.cache
def _noise_bank(kind: str, variant: int, narrow: bool) -> np.ndarray:
    """Half a minute of noise to cut pieces from; making it anew for every clip would slow the training down."""
    samples = noise(kind, 30 * SAMPLE_RATE, np.random.default_rng([(*NOISES, MUSIC).index(kind), variant]))
    if narrow:
        samples = telephone(samples, mu_law=False)
    return samples / np.float32(np.sqrt(np.mean(samples**2)))


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random recording of the int16 utterance ``samples``: float32 in [-1, 1] with silence around it."""
    signal = samples.astype(np.float32) / 32768
    if rng.random() < 0.5:  # another vocal tract: pitch, formants and tempo together
        positions = np.arange(0, signal.size - 1, rng.uniform(0.86, 1.15))
        left = positions.astype(np.int32)
        share = (positions - left).astype(np.float32)
        signal = signal[left] * (1 - share) + signal[left + 1] * share
    before, after = (int(SAMPLE_RATE * rng.exponential(0.2)) * (rng.random() < 0.8) for _ in range(2))
    signal = np.pad(signal, (min(before, 16000), min(after, 16000)))
    on_the_phone = rng.random() < 0.2
    if on_the_phone or rng.random() < 0.4:
        signal = _transmit(signal, on_the_phone, rng)
    if rng.random() < 0.55:
        kind = str(rng.choice((*NOISES, MUSIC), p=(0.3, 0.25, 0.15, 0.1, 0.08, 0.05, 0.07)))
        bank = _noise_bank(kind, int(rng.integers(4)), bool(on_the_phone and rng.random() < 0.6))
        start = rng.integers(0, bank.size - signal.size)
        level = np.sqrt(speech_power(signal)) * 10 ** (-rng.uniform(10, 45) / 20)
        signal = signal + bank[start : start + signal.size] * np.float32(level)
    if on_the_phone and rng.random() < 0.5:
        signal = _mu_law(signal)
    signal *= np.float32(10 ** rng.uniform(-1.6, -0.05) / max(float(np.max(np.abs(signal))), 1e-6))
    return quantized(signal)


def no_speech(seconds: float, rng: np.random.Generator, kinds: Sequence[str] = NOISES) -> np.ndarray:
    """A recording in which nobody speaks: digital silence, or a mixture of noises of ``kinds``."""
    count = int(seconds * SAMPLE_RATE)
    signal = np.zeros(count, np.float32)
    if rng.random() < 0.15:
        return signal
    for _ in range(rng.integers(1, 4)):
        layer = noise(str(rng.choice(kinds)), count, rng)
        if rng.random() < 0.3:
            swell = np.interp(np.arange(count), np.linspace(0, count, 6), rng.uniform(0, 1, 6))
            layer = layer * swell.astype(np.float32)
        signal = signal + layer * np.float32(rng.uniform(0.05, 1))
    if rng.random() < 0.2:
        signal = telephone(signal, mu_law=False)
    signal *= 10 ** rng.uniform(-3.5, -0.1) / max(float(np.max(np.abs(signal))), 1e-6)
    return quantized(signal)


def quantized(signal: np.ndarray) -> np.ndarray:
    """Round to 16 bits, as every recording is."""
    return (np.rint(np.clip(signal, -1, 1) * np.float32(32767)) / np.float32(32768)).astype(np.float32)
