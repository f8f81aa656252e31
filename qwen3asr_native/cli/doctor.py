"""The command ``qwen3asr doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import epilog
from .command import as_json, command, option
from .terminal import output, print_json, safe

if TYPE_CHECKING:
    from rich.table import Table


@command(
    short_help="Say what works here, for you or a bug report.",
    epilog=epilog.closing(
        "qwen3asr doctor",
        "qwen3asr doctor --model qwen3-asr-0.6b-q4_0",
        "qwen3asr doctor --json > report.json",
        statuses={"1": "a model that was tried does not run, or hears something else than is said"},
    ),
)
@option("--model", "-m", metavar="MODEL", help="Model file, checkpoint or name to load and try as well.")
@option("--paths", is_flag=True, help="Show paths of this machine; without it, they are left out.")
@as_json
def doctor(model: str | None, paths: bool, as_json: bool) -> None:
    """Say what the package sees: processor, kernels, audio formats, models, folders, optional parts, versions.

    The built-in model, and the one that is named, recognize a sample; what they say is compared with what is said there.
    Nothing that names you or your folders is shown, so the page can be pasted into a bug report.
    """
    from ..lab.doctor import examine

    report = examine(model, paths=paths)
    if as_json:
        print_json(report)
    else:
        _print(report, paths)
    if any(trial["verdict"] != "as said" for trial in report["trials"]):
        raise click.exceptions.Exit(1)


def _print(report: dict[str, Any], paths: bool) -> None:
    console = output()
    for title in ("versions", "machine", "engine", "audio"):
        rows = [(_label(name), _shown(name, value)) for name, value in report[title].items()]
        console.print(_table(title, rows))
    models = [
        (row["name"], f"in {row['place']}: {row['state']}; checksum {row.get('checksum', 'not known')}")
        for row in report["models"]
    ]
    console.print(_table("models here", models))
    folders = [
        (
            name,
            f"{folder['path'] or ''} {'writable' if folder['writable'] else 'not writable'}, "
            f"{_gigabytes(folder['free_bytes'])} free",
        )
        for name, folder in report["folders"].items()
    ]
    console.print(_table("folders", folders))
    parts = [
        (name, "installed" if part["installed"] else f"lacks {', '.join(part['missing'])}: {part['get']}")
        for name, part in report["optional_parts"].items()
    ]
    console.print(_table("optional parts", parts))
    if report["environment"]:
        console.print(_table("environment", list(report["environment"].items())))
    console.print(_table("trials", [(trial["model"], _trial(trial)) for trial in report["trials"]]))
    console.print(_table("advice", [("", sentence) for sentence in report["advice"]] or [("", "none")]))


def _trial(trial: dict[str, Any]) -> str:
    if trial["verdict"] == "failed":
        return f"failed: {trial['error']}"
    return (
        f"{trial['verdict']}: {trial['text']!r} ({trial['tensor_type']}, kernels {trial['kernels']}, {trial['threads']} "
        f"threads, loaded in {trial['load_seconds']:.2f} s, real-time factor {trial['real_time_factor']:.3f})"
    )


def _label(name: str) -> str:
    return name.replace("_bytes", "").replace("_", " ")


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name.endswith("_bytes"):
        return _gigabytes(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _gigabytes(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.1f} GB"


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2)
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(safe(name)), Text(safe(value)))
    return table
