"""Where a training runs and reports: the settings that never change its result."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Where a training runs and reports. None of this changes its result."""

    data: str
    """data set folder or URI (written by `focusvit preprocess`)"""
    run_dir: str
    """run directory or URI; the same command on the same directory goes on with the run"""
    workers: str = "1"
    """training processes: a number, or MIN-MAX for an elastic group"""
    device: str = "auto"
    """cpu, gpu, or auto: GPUs when there is one for each of the (fewest) workers, CPUs when there is none at all"""
    cpus_per_worker: int = 0
    """CPU threads of each worker; 0 = as many as all workers can have at once on the nodes that are there"""
    max_failures: int = 3
    """how often the workers are started again after one died"""
    local: bool = False
    """one worker in this process, without Ray (for a debugger)"""
    ray_address: str | None = None
    """a running Ray cluster; without it Ray starts inside this process"""
    autoscaled: bool = False
    """the cluster adds nodes when they are asked for: wait for the CPUs and GPUs that are missing now"""
    tracking_uri: str | None = None
    """MLflow store; default: MLFLOW_TRACKING_URI, else ./mlflow.db. A run that goes on follows a moved server"""
    experiment: str | None = None
    """MLflow experiment; default: focusvit"""
    run_name: str | None = None
    """MLflow run name; default: the recipe and the name of the run directory. A run that goes on is renamed"""
    score_on: str | None = None
    """NAME=DIR: score each checkpoint there by kNN and few-shot meanwhile, on one CPU that the training leaves free"""
    dry_run: bool = False
    """print the resolved config, steps, memory, tokens, FLOPs and time, then stop"""
    images_per_s: float | None = None
    """with --dry-run: the throughput of all workers together, for the time; default: at 100, 1000 and 10000"""
    json: bool = False
    """print the summary as one JSON object on stdout"""
    verbose: bool = False
    """show what Ray and the workers print"""

    def __post_init__(self) -> None:
        worker_range(self.workers)
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f"--device must be auto, cpu or gpu, not '{self.device}'")
        if self.local and self.score_on:
            raise ValueError("--score-on scores checkpoints on Ray; leave out --local")
        if self.images_per_s is not None and (self.images_per_s <= 0 or not self.dry_run):
            raise ValueError("--images-per-s must be positive and belongs to --dry-run")
        if self.max_failures < 0 or self.cpus_per_worker < 0:
            raise ValueError("--max-failures and --cpus-per-worker must not be negative")


def worker_range(text: str) -> tuple[int, int]:
    """'3' -> (3, 3); '1-4' -> (1, 4). ValueError for anything else."""
    low, _, high = text.partition("-")
    if not low.isdigit() or (high and not high.isdigit()) or text.endswith("-"):
        raise ValueError(f"--workers must be a number or MIN-MAX, not '{text}'")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last:
        raise ValueError(f"--workers must satisfy 1 <= MIN <= MAX, not '{text}'")
    return first, last
