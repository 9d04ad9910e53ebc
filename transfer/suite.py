"""`focusvit transfer`: a checkpoint on downstream tasks: one table with spread and chance, tracked run by run."""

import dataclasses
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from focusvit.box.names import checkpoint_place
from focusvit.choices import check_device, pick_device, token_budgets
from focusvit.predict.compatible import check_tokens
from focusvit.runs.checkpoint import Checkpoint, load_checkpoint
from focusvit.runs.run_dir import RunDir
from focusvit.runs.store import default_tracking_uri
from pipeline.commandline import parse
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.secrets import masked
from transfer.options import TransferConfig
from transfer.report.logbook import Logbook, suite_run
from transfer.report.table import CSV_COLUMNS, csv_cells, csv_text, markdown_table, text_table
from transfer.tasks.controls import controls
from transfer.tasks.known_tasks import parse_task, with_labels
from transfer.tasks.prepare import prepared
from transfer.tasks.spec import MapTasks, Outcome, WorkSpec, in_turn
from transfer.tasks.task import Task

from .finetune import Train, published, run_finetune, train_here
from .suites import for_suite, tasks_of
from .work import run_task

Config = TypeVar("Config", bound="TransferConfig")


def main(argv: list[str]) -> int:
    """Run a suite in this process. `cluster.train.transfers` is the verb: the same, with Ray where it is asked for."""
    return run(parse(TransferConfig, argv, prog="focusvit transfer"))


def with_out(config: Config) -> Config:
    """The config with its default folder filled in: the same for the same command, another for every other one."""
    if config.out:
        return config
    place = checkpoint_place(config.checkpoint)
    where_and_how_fast = {"out", "features_folder", "register", "batch_size", "loader_workers", "device"}
    where_and_how_fast |= {"tracking_uri", "experiment", "json", "tasks_at_once", "workers", "ray_address"}
    asked = {name: value for name, value in dataclasses.asdict(config).items() if name not in where_and_how_fast}
    asked |= {"checkpoint": place, "best": RunDir(place).best()}  # a run that goes on may have another best one later
    digest = hashlib.sha256(json_text(asked, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", storage.name_of(place)) or "checkpoint"
    return dataclasses.replace(config, out=f"transfer-results/{config.suite}-{name}-{digest}")


def run(config: TransferConfig, map_tasks: MapTasks = in_turn, train: Train = train_here) -> int:
    """Run a suite. `map_tasks(work, specs)` schedules the tasks (here: one after another), `train` fine-tunes."""
    config = with_out(config)
    config = dataclasses.replace(config, out=storage.resolve(config.out))
    tasks, missing = _tasks(config)
    check_device(config.device)
    specs = _specs(config, tasks, pick_device(config.device) if map_tasks is in_turn else config.device)
    record = load_checkpoint(specs[0].checkpoint, config.patch)
    check_tokens(record, specs[0].tokens)
    tracking_uri = default_tracking_uri(config.tracking_uri or None)
    say = sys.stderr.write if config.json else sys.stdout.write
    say(
        f"transfer suite '{config.suite}' of {record.uri} ({record.samples_seen:,} samples seen) on {len(specs)} "
        f"tasks: {', '.join(task.name for task in tasks)}\n"
        f"results to {config.out}, runs to {masked(tracking_uri)}, "
        f"device {specs[0].device}{'' if map_tasks is in_turn else ' on Ray'}\n"
    )
    for line in missing:
        say(f"left out: {line}\n")
    started = time.perf_counter()
    if config.controls:
        specs = [one for spec in specs for one in (spec, *controls(spec, record))]
    specs, outcomes = _prepared(specs, record, config.out, say)
    params = ("suite", "checkpoint", "patch", "tokens", "baselines", "seed", "task", "finetune")
    told = {name: str(getattr(config, name)) for name in params}
    with suite_run(tracking_uri, config.experiment, config.suite, record, told) as parent:
        logbook = Logbook(parent, config.experiment, record)
        for outcome in outcomes:
            logbook.add(outcome)
        for outcome in tqdm(
            _outcomes(config, specs, map_tasks, train),
            total=len(specs) + config.finetune * sum(not spec.control for spec in specs),
            desc="tasks",
            unit="task",
        ):
            outcomes.append(outcome)
            logbook.add(outcome)
        rows = [row for outcome in outcomes for row in outcome.rows]
        listed = {name: [line for one in outcomes for line in getattr(one, name)] for name in ("failures", "notes")}
        found = {"kind": "transfer", "suite": config.suite, "checkpoint": record.uri, "rows": rows, **listed}
        _write_tables(config.out, found)
        logbook.close(outcomes, config.out, failed=not rows)
        if config.register:
            say(logbook.register(config.register, outcomes) + "\n")
    for problem in logbook.problems:
        sys.stderr.write(f"not tracked: {problem}; the results are in {config.out}\n")
    if config.json:
        sys.stdout.write(json_text(_plain(found)) + "\n")
    elif rows:
        say(text_table(rows) + "\n")
    for line in found["notes"]:
        say(f"note: {line}\n")
    for line in found["failures"]:
        sys.stderr.write(f"failed: {line}\n")
    say(
        f"{len(rows)} results from {len(outcomes)} tasks in {time.perf_counter() - started:.1f} s (features "
        f"{sum(one.features_s for one in outcomes):.1f} s; {sum(one.num_skipped for one in outcomes)} protocols found "
        f"finished, {len(found['failures'])} failed); table in {storage.join(config.out, 'results.md')}\n"
    )
    return 0 if rows and not found["failures"] else 1


def _prepared(
    specs: list[WorkSpec], record: Checkpoint, out: str, say: Callable[[str], object]
) -> tuple[list[WorkSpec], list[Outcome]]:
    """The specs, each of a task on shards; and the outcomes of those whose images could not be prepared."""
    ready, failed = [], []
    for spec in specs:
        try:
            ready.append(dataclasses.replace(spec, task=prepared(spec.task, record, out, say)))
        except (UsageError, DataError) as error:
            failed.append(Outcome(task=spec.task, failures=[f"{spec.task.name}: {error}"]))
    return ready, failed


def _outcomes(config: TransferConfig, specs: list[WorkSpec], map_tasks: MapTasks, train: Train) -> Iterator[Outcome]:
    """What became of each task; then of each fine-tuning, one after another: a training uses all there is."""
    outcomes = []
    for outcome in map_tasks(run_task, specs):
        outcomes.append(outcome)
        yield outcome
    if config.finetune:
        settings = published(config.suite, config.finetune_steps)
        measured = {outcome.task.name for outcome in outcomes if outcome.rows and outcome.task.metric != "miou"}
        for spec in specs:
            if spec.task.name in measured and not spec.control:
                # Where trainings run elsewhere, this process only scores what came out, with what it has.
                here = spec if train is train_here else dataclasses.replace(spec, device="auto")
                yield run_finetune(here, settings, train)


def _tasks(config: TransferConfig) -> tuple[list[Task], list[str]]:
    """The tasks that are named or found, and lines for those of the suite that are not prepared. UsageError."""
    named = [
        for_suite(with_labels(parse_task(text), config.ignore_labels, config.map_labels), config.suite)
        for text in config.task
    ]
    found, missing = tasks_of(config.suite, storage.resolve(config.tasks_root)) if config.tasks_root else ([], [])
    tasks = named + [task for task in found if task.name not in {one.name for one in named}]
    if not tasks:
        raise UsageError(
            "no task is named. Give one as --task name=DIR (a folder of `focusvit preprocess`), or a folder of "
            "prepared known tasks as --tasks-root DIR with --suite kornblith, vtab1k, dense or all."
        )
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"the task name '{twice[0]}' is given twice. Name them apart: --task other=DIR.")
    return tasks, missing


def _specs(config: TransferConfig, tasks: list[Task], device: str) -> list[WorkSpec]:
    features = config.features_folder or storage.join(config.out, "features")
    if not storage.is_local(storage.resolve(features)):
        raise UsageError(f"features are memory-mapped files, so {features} must be local. Set --features-folder DIR.")
    known = {field.name for field in dataclasses.fields(WorkSpec)}
    values = {name: value for name, value in vars(config).items() if name in known} | {
        "checkpoint": checkpoint_place(config.checkpoint), "out": storage.join(config.out, "results"), "device": device,
        "features_folder": storage.resolve(features), "tokens": token_budgets(config.tokens, None)[0],
    }  # fmt: skip
    return [WorkSpec(**{**values, "task": task}) for task in tasks]


def _write_tables(out: str, found: dict[str, Any]) -> None:
    rows, listed = found["rows"], [*found["failures"], *found["notes"]]
    heading = f"# Transfer suite '{found['suite']}' of `{masked(found['checkpoint'])}`\n\n"
    footer = "".join(f"\n- {line}" for line in listed) + ("\n" if listed else "")
    storage.put(storage.join(out, "results.md"), (heading + markdown_table(rows) + footer).encode())
    storage.put(storage.join(out, "results.csv"), csv_text(CSV_COLUMNS, map(csv_cells, rows)).encode())
    storage.put_json(storage.join(out, "results.json"), _plain(found))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"rows": [dataclasses.asdict(row) for row in found["rows"]]}
