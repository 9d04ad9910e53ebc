"""What a suite is: which protocols on which features, and which of the known tasks. All of it is data."""

import dataclasses

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.shards.dataset import DATASET_FILE
from transfer.protocols.heads import LinearHeads
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import FULL_GRID, Logistic
from transfer.protocols.protocol import Protocol
from transfer.protocols.ridge import Ridge
from transfer.tasks.known_tasks import KNOWN_TASKS, KnownTask, task_of
from transfer.tasks.task import Task

VTAB_ROWS = (800, 200)  # images to train on, images to choose on


def protocols_of(suite: str, features: str, device: str, seed: int = 0) -> list[Protocol]:
    """The protocols of one suite on one kind of features. Raw pixels get kNN only: it needs no training to compare."""
    if features == "pixels":
        return [Knn(device=device)]
    if suite in ("quick", "dense"):
        return [Knn(device=device), Ridge(seed=seed), Logistic(device=device)]
    if suite == "vtab1k":
        return [Knn(device=device), Logistic(device=device, grid=FULL_GRID)]
    full: list[Protocol] = [Knn(device=device), Ridge(seed=seed), Logistic(device=device, grid=FULL_GRID)]
    return full if features == "random" else [*full, LinearHeads(device=device, seed=seed)]


def _in_suite(task: KnownTask, suite: str) -> bool:
    vtab = task.group.startswith("vtab") or "vtab1k" in task.suites
    if suite == "all":
        return vtab or task.group in ("kornblith", "dense", "other")
    return vtab if suite == "vtab1k" else suite in (task.group, *task.suites)


def tasks_of(suite: str, root: str) -> tuple[list[Task], list[str]]:
    """The suite's known tasks that lie prepared at `root/<name>`, and a line for each that does not. Raises UsageError
    when there is none of them."""
    wanted = [task for task in KNOWN_TASKS if _in_suite(task, suite)]
    tasks, missing = [], []
    for row in wanted:
        place = storage.join(root, row.name)
        if storage.exists(storage.join(place, DATASET_FILE)):
            tasks.append(for_suite(task_of(row.name, place), suite))
        else:
            missing.append(f"{row.name} is not prepared ({row.source}): focusvit preprocess --out {place}")
    if not tasks:
        raise UsageError(
            f"suite '{suite}': none of its {len(wanted)} tasks is prepared below {root}. Prepare one, for example with "
            f"`focusvit preprocess --source SRC --out {storage.join(root, wanted[0].name)} --split train` (and test)."
        )
    return tasks, missing


def for_suite(task: Task, suite: str) -> Task:
    """The task as this suite measures it: VTAB-1k takes 1000 training images and top-1 everywhere."""
    return dataclasses.replace(task, num_rows=VTAB_ROWS, metric="top1") if suite == "vtab1k" else task
