"""The commands ``qwen3asr bench`` and ``qwen3asr leaks``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..files.output import target
from . import command, epilog, terminal
from .command import argument, count, option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from ..lab import bench as bench_module
    from ..lab import leaks as leaks_module
    from ..lab import scaling as scaling_module

INTERRUPTED = 130


class _Counts(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers of at least 1, with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        numbers = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in numbers):
            self.fail(
                f"'{value}' is no number of at least 1, nor several with commas between them", param, ctx
            )
        return [int(part) for part in numbers]


class _OutputFile(click.Path):
    """Where a result will be written. What is named and cannot become a file is told before the work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        named = ctx is not None and param is not None and ctx.get_parameter_source(param.name or "")
        if named is ParameterSource.COMMANDLINE:
            target(path)
        return path


_FILE = _OutputFile()
_plot = option("--plot", type=_FILE, metavar="FILE", help="Draw the result into this PNG file.")


def _output(default: str) -> Callable[[command.Function], command.Function]:
    return option(
        "--output", "-o", type=_FILE, metavar="FILE", default=default, help="JSON file for the whole result."
    )


@command.command(
    short_help="Measure speed, memory and error rates.",
    epilog=epilog.closing(
        "qwen3asr bench --model models/qwen3-asr-0.6b-q4_0.bin --iterations 5 talk.wav",
        "qwen3asr bench --roofline --plot speed.png talk.wav",
        "qwen3asr bench --threads 1,2,4,8,16 --concurrency 8 talk.wav",
        "qwen3asr bench --server http://127.0.0.1:8000 --concurrency 16 --duration 300 *.wav",
    ),
)
@argument("files", metavar="FILE...", nargs=-1, required=True, help="Audio files.")
@command.model
@count("--iterations", "-n", default=10, help="How often.")
@count("--warmup", least=0, default=1, help="Iterations before them that are not measured.")
@option(
    "--references",
    metavar="FILE",
    help="Table of lines FILE<TAB>TEXT with what is said; without it, FILE's own .txt beside it.",
)
@option("--language", "-l", envvar="ASR_LANGUAGE", help="Force a language; default: detect.")
@option("--context", default="", show_default=False, help="Text that helps recognition.")
@option("--script", help="Chinese script to write, for example zh-TW.")
@option("--itn", is_flag=True, help="Write spoken Chinese numbers as digits.")
@option(
    "--threads",
    "-t",
    type=_Counts(),
    metavar="N[,N...]",
    envvar="INFERENCE_THREADS",
    help="Threads to compute with; several numbers are compared. Default: all processors.",
)
@command.context_length
@count("--max-new-tokens", help="Limit of tokens; default: from the length of the audio.")
@command.kernels
@option("--library", help="Another build of chatllm.cpp's library.")
@option("--reload", is_flag=True, help="Load the model anew for each iteration.")
@option("--roofline", is_flag=True, help="Measure the machine's limits too, and each stage's share of them.")
@option(
    "--server", metavar="URL", help="Put load on a server instead: latencies, throughput, errors, its memory."
)
@count(
    "--concurrency",
    help="Compare one utterance with N at once. With --server: clients at a time, 4 by default.",
)
@option(
    "--duration", type=click.FloatRange(1), metavar="SECONDS", help="With --server: how long, not how often."
)
@option("--api-key", envvar="QWEN3ASR_API_KEY", metavar="KEY", help="With --server: its key.")
@option("--compare", is_flag=True, help="With --server: put the same clips through the library, too.")
@option("--plain", is_flag=True, help="With --server: ask for plain answers, not for streams of events.")
@_output("results/asr_results.json")
@_plot
def bench(
    files: tuple[str, ...],
    model: str | None,
    iterations: int,
    warmup: int,
    references: str | None,
    language: str | None,
    context: str,
    script: str | None,
    itn: bool,
    threads: list[int] | None,
    context_length: int | None,
    max_new_tokens: int | None,
    kernels: str | None,
    library: str | None,
    reload: bool,
    roofline: bool,
    server: str | None,
    concurrency: int | None,
    duration: float | None,
    api_key: str | None,
    compare: bool,
    plain: bool,
    output: Path,
    plot: Path | None,
) -> None:
    """Measure speed, memory and error rates over repeated transcriptions.

    Ctrl-C ends it; what was measured until then is printed and written.
    """
    one = threads[0] if threads else None
    if server is not None:
        _load(
            files,
            server,
            concurrency or 4,
            None if duration else iterations,
            duration,
            api_key,
            language,
            plain,
            output,
            {
                "model": model,
                "threads": one,
                "context_length": context_length,
                "kernels": kernels,
                "max_new_tokens": max_new_tokens,
            }
            if compare
            else None,
        )
        return
    from ..lab import bench as laboratory
    from ..lab import plots
    from ..lab.measure import extra

    if plot is not None:
        extra("matplotlib")  # better now than after the work
    settings = laboratory.Settings(
        one, context_length, kernels, library, language, context, script, itn, max_new_tokens, reload
    )
    if concurrency is not None or (threads and len(threads) > 1):
        if plot is not None or roofline or reload:
            raise click.UsageError("--plot, --roofline and --reload do not go with a comparison")
        at_once = sorted({1, concurrency or 1})
        _compare(list(files), model, threads or [None], at_once, iterations, settings, output)
        return
    with terminal.progress((iterations + warmup) * len(files)) as step:
        report = laboratory.run(
            list(files),
            model,
            references=laboratory.read_references(list(files), references),
            iterations=iterations,
            warmup=warmup,
            roofline=roofline,
            settings=settings,
            progress=step,
        )
    _print_bench(report)
    _write(report.to_dict(), output)
    if plot is not None and report.iterations:
        plots.plot_bench(report, plot)
    if report.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)


def _compare(
    files: list[str],
    model: str | None,
    threads: Sequence[int | None],
    at_once: list[int],
    rounds: int,
    settings: bench_module.Settings,
    output: Path,
) -> None:
    """``bench --threads 1,2`` and ``bench --concurrency``."""
    from ..lab import scaling

    with terminal.progress(len(threads) * len(at_once) * (rounds + 1)) as step:
        report = scaling.run(
            files, model, threads=threads, at_once=at_once, rounds=rounds, settings=settings, progress=step
        )
    if report.rows:
        terminal.output().print(_scaling_table(report))
    _write(report.to_dict(), output)
    if report.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)


def _scaling_table(report: scaling_module.Report) -> Table:
    """Each number with its ratio to the first row's."""
    first = report.rows[0]
    table = _table(
        f"{Path(report.model['path']).name}, {report.settings['rounds']} rounds; in brackets: as multiples of the first line",
        "threads",
        "at once",
        "audio s/s",
        "first token, ms",
        "step, ms",
        "tokens/s",
        "RSS, MB",
    )

    def cell(value: float | None, base: float | None, form: str, divisor: float = 1) -> str:
        if value is None:
            return ""
        return format(value / divisor, form) + (f" ({value / base:.2f})" if base else "")

    for row in report.rows:
        table.add_row(
            str(row.threads),
            str(row.at_once),
            cell(row.audio_per_second, first.audio_per_second, ".2f"),
            cell(row.first_token_ms, first.first_token_ms, ".1f"),
            cell(row.step_ms, first.step_ms, ".2f"),
            cell(row.tokens_per_second, first.tokens_per_second, ".1f"),
            cell(row.rss, first.rss, ".1f", 1e6),
        )
    return table


@command.command(
    short_help="Say whether memory, descriptors or threads grow.",
    epilog=epilog.closing(
        "qwen3asr leaks --repetitions 200 --plot leaks.png",
        "qwen3asr leaks --library ./libchatllm.so --compare talk.wav",
        statuses={"0": "everything is flat", "1": "something grows, or cannot be judged or measured"},
    ),
)
@argument("audio", metavar="FILE", required=False, help="Audio file; default: two seconds of a tone.")
@command.model
@count("--repetitions", "-n", default=100, help="For each way.")
@count(
    "--warmup",
    least=0,
    help="Repetitions at the beginning that do not count; default: a tenth, at least 5.",
)
@option(
    "--way",
    multiple=True,
    help="recreate (load, run, destroy) or reuse (load once; restart and run); default: both.",
)
@option("--library", help="Examine this build of chatllm.cpp's library instead of the engine.")
@option("--compare", is_flag=True, help="With --library: examine the built-in engine too.")
@command.threads
@count("--max-new-tokens", default=32, help="Limit of tokens of an answer.")
@option(
    "--timeout",
    type=click.FloatRange(1),
    metavar="SECONDS",
    default=600.0,
    help="Seconds without a sign of life after which a process is ended.",
)
@_output("results/leaks.json")
@_plot
def leaks(
    audio: str | None,
    model: str | None,
    repetitions: int,
    warmup: int | None,
    way: tuple[str, ...],
    library: str | None,
    compare: bool,
    threads: int | None,
    max_new_tokens: int,
    timeout: float,
    output: Path,
    plot: Path | None,
) -> None:
    """Repeat inference in child processes and say whether memory, descriptors or threads grow.

    Ctrl-C ends it; what was measured until then is printed and written.
    """
    from ..lab import leaks as laboratory
    from ..lab import plots
    from ..lab.measure import extra

    if plot is not None:
        extra("matplotlib")
    ways = way or laboratory.WAYS
    with terminal.progress(repetitions) as step:
        report = laboratory.examine(
            model,
            audio,
            repetitions=repetitions,
            warmup=warmup,
            ways=ways,
            library=library,
            compare=compare,
            threads=threads,
            max_new_tokens=max_new_tokens,
            timeout=timeout,
            progress=lambda subject, name, done: step(f"{Path(subject).name}, {name}", done),
        )
    _print_leaks(report)
    _write(report.to_dict(), output)
    if plot is not None:
        plots.plot_leaks(report, plot)
    if report.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if report.verdict != "flat":
        raise click.exceptions.Exit(1)


def _load(
    files: tuple[str, ...],
    server: str,
    concurrency: int,
    iterations: int | None,
    duration: float | None,
    key: str | None,
    language: str | None,
    plain: bool,
    output: Path,
    library: dict[str, Any] | None,
) -> None:
    """``bench --server``; ``library``: the settings with which the clips go through the library as well."""
    from ..lab import load

    requests = None if iterations is None else iterations * len(files)
    with terminal.progress(requests) as step:
        report = load.run(
            files,
            server.rstrip("/"),
            concurrency=concurrency,
            requests=requests,
            seconds=duration,
            key=key,
            language=language,
            plain=plain,
            library=load.Library(**library) if library is not None else None,
            progress=step,
        )
    summary = report.summary()
    rows = {
        "requests": f"{summary['requests']} in {report.seconds:.1f} s, {summary['failed']} failed",
        **{error: str(count) for error, count in summary["errors"].items()},
        "latency": _milliseconds(summary["latency"]),
        **({} if plain else {"first event": _milliseconds(summary["first_event"])}),
        "audio seconds per second": f"{summary['audio_per_second']:.1f}",
    }
    if report.library_audio_per_second is not None:
        share = summary["audio_per_second"] / report.library_audio_per_second
        rows["the library's"] = (
            f"{report.library_audio_per_second:.1f} (the server reaches {share:.2f} of it)"
        )
    if report.library_seconds and summary["latency"] is not None:
        alone, more = summary["library"], summary["latency"]["p50"] - summary["library"]["p50"]
        rows["the library's latency"] = (
            f"{_milliseconds(alone)} (the server adds {1000 * more:.1f} ms, {more / alone['p50']:.1%})"
        )
    if summary["memory_first"] is not None:
        values = (summary[name] / 1e6 for name in ("memory_first", "memory_last", "memory_most"))
        rows["memory of the server, MB"] = "first {:.1f}, last {:.1f}, most {:.1f}".format(*values)
    terminal.print_table(rows)
    _write(report.to_dict(), output)
    if report.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if summary["failed"]:
        raise click.exceptions.Exit(1)


def _milliseconds(percentiles: dict[str, float] | None) -> str:
    if percentiles is None:
        return ""
    return ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in percentiles.items())


def _write(content: dict[str, Any], path: Path) -> None:
    from ..lab.measure import write_json

    write_json(content, path)
    terminal.note(f"The whole result is in {path}.")


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table


# Row, name in the summary, divisor, number format.
_ROWS = (
    ("load, ms", "load_ms", 1, ".1f"),
    ("mel, ms", "mel_ms", 1, ".2f"),
    ("encode, ms", "encode_ms", 1, ".1f"),
    ("prefill, ms", "prefill_ms", 1, ".1f"),
    ("first token, ms", "first_token_ms", 1, ".1f"),
    ("first token of the text, ms", "first_text_ms", 1, ".1f"),
    ("decode step, ms", "per_token_ms", 1, ".2f"),
    ("total, ms", "total_ms", 1, ".1f"),
    ("decoding speed, characters/s", "characters_per_second", 1, ".1f"),
    ("real-time factor", "real_time_factor", 1, ".4f"),
    ("RSS, MB", "rss", 1e6, ".1f"),
    ("USS, MB", "uss", 1e6, ".1f"),
    ("peak RSS, MB", "peak_rss", 1e6, ".1f"),
    ("character errors, %", "cer", 0.01, ".1f"),
    ("character errors, normalized, %", "cer_normalized", 0.01, ".1f"),
    ("word errors, %", "wer", 0.01, ".1f"),
    ("word errors, normalized, %", "wer_normalized", 0.01, ".1f"),
)


def _print_bench(report: bench_module.Report) -> None:

    count = len(report.iterations)
    interrupted = ", interrupted" if report.interrupted else ""
    title = (
        f"{Path(report.model['path']).name}: {count} transcription{'s' * (count != 1)} of "
        f"{len(report.settings['files'])} file{'s' * (len(report.settings['files']) != 1)}{interrupted}"
    )
    table = _table(title, "", "median", "p10", "p90", "values")
    for label, name, divisor, form in _ROWS:
        values = report.summary[name]
        if values is not None:
            numbers = (format(values[key] / divisor, form) for key in ("median", "p10", "p90"))
            table.add_row(label, *numbers, str(int(values["values"])))
    console = terminal.output()
    if count:
        console.print(table)
    else:
        console.print("Nothing was measured.")
    if report.roofline is not None:
        console.print(_roofline_table(report.roofline))


def _roofline_table(roofline: dict[str, Any]) -> Table:
    peaks = roofline["machine"]
    table = _table(
        f"Share of the machine's limits, {peaks['threads']} threads",
        "",
        "reached",
        "int8",
        "bf16",
        "float32",
        "read",
    )
    table.add_row(
        "the machine",
        "",
        *(f"{peaks[name] / 1e9:.0f} GOP/s" for name in ("int8_ops", "bf16_ops", "float_ops")),
        f"{peaks['read_bytes'] / 1e9:.1f} GB/s",
    )
    for stage in ("encode", "prefill", "both"):
        values = roofline[stage]
        if values is not None:
            shares = (_percent(values.get(f"share_of_{kind}")) for kind in ("int8", "bf16", "float32"))
            table.add_row(stage, f"{values['ops_per_second'] / 1e9:.1f} GOP/s", *shares, "")
    decode = roofline["decode"]
    if decode is not None:
        table.add_row(
            "decode",
            f"{decode['bytes_per_second'] / 1e9:.1f} GB/s",
            "",
            "",
            "",
            _percent(decode["share_of_read"]),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _print_leaks(report: leaks_module.Report) -> None:
    """A column for each run, subjects side by side."""
    from ..lab.leaks import QUANTITIES, amount

    runs = [(subject, run) for subject, of_subject in report.subjects.items() for run in of_subject]
    table = _table(
        f"{Path(report.settings['model']).name}, growth for each repetition with its 95 % interval",
        "",
        *(f"{Path(subject).name}\n{run.way}" for subject, run in runs),
    )
    table.add_row("verdict", *(run.verdict for _, run in runs))
    table.add_row("repetitions, warm-up", *(f"{len(run.samples)}, {run.warmup}" for _, run in runs))
    for name in QUANTITIES:
        cells = []
        for _, run in runs:
            quantity = run.quantities.get(name)
            fitted = quantity.growth if quantity else None
            cells.append(_growth_cell(name, fitted) if fitted else "")
        if any(cells):
            table.add_row(_LABELS[name], *cells)
    for name in ("uss", "malloc"):
        warm = [run.quantities.get(name) for _, run in runs]
        table.add_row(
            f"change in the warm-up, {_LABELS[name]}", *(amount(name, q.warmup) if q else "" for q in warm)
        )
    kept = (run.kept_bytes for _, run in runs)
    table.add_row("stays after destroy", *("" if k is None else amount("uss", float(k)) for k in kept))
    console = terminal.output()
    console.print(table)
    for subject, run in runs:
        for finding in run.findings:
            console.print(f"{Path(subject).name}, {run.way}: {finding}", markup=False, soft_wrap=True)
    interrupted = " (interrupted)" if report.interrupted else ""
    console.print(f"Verdict: {report.verdict}{interrupted}")


_LABELS = {
    "rss": "RSS",
    "uss": "USS",
    "malloc": "malloc, in use",
    "malloc_held": "malloc, held",
    "mapped": "mapped files, size",
    "mapped_files": "mapped files",
    "descriptors": "descriptors",
    "threads": "threads",
}


def _growth_cell(name: str, fitted: tuple[float, float, float]) -> str:
    from ..lab.leaks import amount

    slope, low, high = (amount(name, value) for value in fitted)
    return f"{slope} ({low.replace(' MB', '')} to {high.replace(' MB', '')})"
