"""What travels to wherever a task is worked on, and what comes back: plain values."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from focusvit.precision import Precision

from .result import Result
from .task import Task

MapTasks = Callable[[Callable[["WorkSpec"], "Outcome"], Sequence["WorkSpec"]], Iterable["Outcome"]]


@dataclass(frozen=True, kw_only=True)
class WorkSpec:
    """Everything that one task's work needs, as values that travel to another process. What `TransferConfig` has too is
    its value, places resolved."""

    task: Task
    checkpoint: str
    suite: str
    out: str
    """Place of finished results (local or a store)."""
    features_folder: str
    """Local folder of feature files."""
    patch: tuple[str, ...] = ()
    control: str = ""
    """The name of the control that this is; its rows say so in the place of 'checkpoint'."""
    tokens: int | None = None
    baselines: bool = True
    max_samples: int | None = None
    batch_size: int = 64
    loader_workers: int = 0
    device: str = "cpu"
    """auto, cpu or cuda; auto is settled where the task runs."""
    precision: Precision = "auto"
    seed: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What came of one task. A failure is a line to list, not an exception to stop on."""

    task: Task
    rows: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_skipped: int = 0
    """Protocols whose finished result was found."""
    features_s: float = 0.0
    data_identity: str = ""


def in_turn(work: Callable[[WorkSpec], Outcome], specs: Sequence[WorkSpec]) -> Iterable[Outcome]:
    """The default `map_tasks`: one after another, in this process."""
    return map(work, specs)
