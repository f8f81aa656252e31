"""The engine from Python. Two backends of one protocol: the engine compiled in, and foreign builds of chatllm.cpp."""

from __future__ import annotations

from ..options import ATTENTION, Options
from .embedded import Machine, engine_version, inspect_model, kernel_sets, measure_machine
from .engine import BATCH, MOST_BATCH, Call, Engine, Holder
from .shim import Event, Run, RunResult, Session, Step

__all__ = [
    "ATTENTION",
    "BATCH",
    "MOST_BATCH",
    "Call",
    "Engine",
    "Event",
    "Holder",
    "Machine",
    "Options",
    "Run",
    "RunResult",
    "Session",
    "Step",
    "engine_version",
    "inspect_model",
    "kernel_sets",
    "measure_machine",
]
