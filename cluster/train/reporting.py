"""What the driver of a training shows and sends: the MLflow run, its curves, the progress bar, the pictures."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from focusvit.runs.checkpoint import load_checkpoint, read_confusion
from focusvit.runs.config_json import flatten, to_json
from focusvit.runs.pyfunc import Scored, log_model
from focusvit.runs.run_dir import RunDir
from focusvit.runs.shipper import Shipper
from focusvit.runs.tracker import Tracker
from focusvit.score.confusion import recall
from focusvit.train.config import TrainConfig
from pipeline.io import storage
from pipeline.secrets import masked
from pipeline.shards.dataset import Dataset

from .checkpoint_scores import POINTS
from .launch import LaunchConfig
from .summary import description, summarise
from .termination import ended_gently
from .tracked_place import TrackedPlace

log = logging.getLogger(__name__)
_LOOKS = {"look_token_budget": "token_budgets", "look_attention": "attention"}  # series -> folder of its pictures


@contextmanager
def reported_run(
    config: TrainConfig, data: Dataset, launch: LaunchConfig, place: TrackedPlace
) -> Iterator[Callable[[], dict[str, Any]]]:
    """An MLflow run around a training: the same one for every start on the same run directory.

    Yields `finish`, which sends pictures and the model and returns the summary. Leaving by an exception or a signal
    marks the run FAILED or KILLED.
    """
    run, started = RunDir(launch.run_dir), time.monotonic()
    known, verb = run.info(), "finetune" if config.init_from else "pretrain"
    name = launch.run_name or known.get("run_name") or _default_name(launch, verb)
    tracker = Tracker.open(
        place.uri,
        place.experiment,
        name,
        run_id=place.run_id,
        tags={"focusvit.run_dir": launch.run_dir, "focusvit.kind": verb, "mlflow.source.name": f"focusvit {verb}"},
    )
    with ended_gently(run), tracker:
        run.set_info(
            {
                "run_id": tracker.run_id,
                "tracking_uri": masked(tracker.uri),
                "experiment": place.experiment,
                "run_name": name,
                "starts": known.get("starts", 0) + 1,
                "finished": False,
            }
        )
        if place.run_id and launch.run_name not in (None, known.get("run_name")):
            tracker.client.update_run(tracker.run_id, name=name)
            sys.stderr.write(f"tracking  the run is called '{name}' now\n")
        tracker.watch()
        tracker.params({**flatten(to_json(config)), "workers": launch.workers})
        split = data.split(config.data.train_split)
        if place.run_id is None:
            tracker.dataset(_named(data, config.data.train_split), split.identity, data.uri)
            scored = data.split(config.data.eval_split)
            tracker.dataset(_named(data, config.data.eval_split), scored.identity, data.uri, context="eval")
        tracker.tags({"data_identity": split.identity, "data_root_hash": split.root_hash.hex()})
        if config.model.needs_maps:
            tracker.image(overlay(config, data), "superpixels/seen_in_training")
        total = config.num_steps(split.num_samples) * config.global_batch
        bar = _Progress(total, run.latest() or 0, tracker.run_id, quiet=launch.json)
        shipper = Shipper(launch.run_dir, tracker, on_point=bar.point).start()
        scores = Shipper(launch.run_dir, tracker, name=POINTS).start() if launch.score_on else None

        def finish() -> dict[str, Any]:
            unsent = shipper.finish() + (scores.finish() if scores else 0)
            bar.close()
            summary = summarise(run, time.monotonic() - started, unsent)
            _send_results(tracker, data, summary)
            run.set_info({"finished": unsent == 0})
            return summary

        try:
            yield finish
        except BaseException:
            shipper.finish(timeout_s=10)
            if scores:
                scores.finish(timeout_s=10)
            bar.close()
            raise


def _default_name(launch: LaunchConfig, verb: str) -> str:
    return f"{getattr(launch, 'recipe', verb)} {launch.run_dir.rstrip('/').rsplit('/', 1)[-1]}"


def overlay(config: TrainConfig, data: Dataset) -> np.ndarray:
    """Training views of a few samples with their regions, exactly as the model gets them."""
    from focusvit.data.loader import TrainLoader
    from focusvit.predict.pictures import superpixel_overlay

    split = data.split(config.data.train_split)
    loader = TrainLoader(
        split,
        config.data,
        seed=config.seed,
        global_batch=min(8, split.num_samples),
        rank=0,
        world_size=1,
        tokens=config.model.tokens,
    )
    batch = loader.peek()
    assert batch.maps is not None
    return superpixel_overlay(batch.images.permute(0, 2, 3, 1).numpy(), batch.maps.numpy())


def _send_results(tracker: Tracker, data: Dataset, summary: dict[str, Any]) -> None:
    """Description, and of the best checkpoint scores, confusion matrix, model. A failing store undoes no training."""
    try:
        tracker.tags({"mlflow.note.content": description(summary, data.uri)})
        now, at = int(time.time() * 1000), summary["checkpoint_samples"]
        best = {name.replace("val/", "best/"): value for name, value in summary["scores"].items()}
        points = [(name, at, value, now) for name, value in best.items()]
        tracker.metrics(points)  # of the model that is logged
        record = load_checkpoint(summary["checkpoint"])
        counts = read_confusion(record)
        if counts is not None:  # of the weights that are logged as the model
            from focusvit.predict.pictures import confusion_figure

            if len(counts) <= 100:
                tracker.figure(confusion_figure(counts, data.classes), "scores/confusion_matrix")
            shares = [None if share is None else round(share, 4) for share in recall(counts)]
            table = {"class": list(data.classes), "samples": counts.sum(1).tolist(), "recall": shares}
            tracker.table(table, "scores/per_class")
        if not record.classes:  # features alone answer nothing
            return
        split = record.config["data"]["eval_split"]
        log_model(tracker, record.uri, [Scored(points, _named(data, split), data.split(split).identity)])
        _send_looks(record.uri, tracker, data)
    except Exception as error:
        sys.stderr.write(f"the tracking store did not take pictures or model ({str(error)[:200]}); the run is done\n")


def _named(data: Dataset, split: str) -> str:
    return f"{storage.name_of(data.uri)} {split}"


def _send_looks(checkpoint_uri: str, tracker: Tracker, data: Dataset) -> None:
    """What the model sees of a few scored samples at other token budgets, and where each block looks: two sliders."""
    from focusvit.model.model import FocusViT
    from focusvit.predict.look import Eye, slider_frames
    from focusvit.runs.checkpoint import load_model

    model, record = load_model(checkpoint_uri, "cpu")
    if not isinstance(model, FocusViT):  # a host of another library keeps its attention to itself
        return
    eye = Eye(model, record)
    split = data.split(eye.record.config["data"]["eval_split"])
    places = np.linspace(0, split.num_samples - 1, min(4, split.num_samples)).round().astype(int)
    for series, step, picture in slider_frames(eye, [split.read(int(i)).image for i in places]):
        tracker.image(picture, f"{_LOOKS[series]}/{step:03d}")


_SHOWN = {
    "train/loss": ("loss", "{:.3f}"),
    "val/top1": ("val_top1", "{:.3f}"),
    "val/cosine": ("val_cosine", "{:.3f}"),
    "perf/img_per_s": ("img/s", "{:.0f}"),
    "perf/data_wait_share": ("data wait", "{:.0%}"),
}


class _Progress:
    """A bar over samples with images per second, time left, loss, the last score, and the time spent waiting for data:
    where that is large, more loader workers (--data.loader-workers) or CPUs help."""

    def __init__(self, total: int, done: int, run_id: str, quiet: bool) -> None:
        self._run_id, self._shown, self._lock = run_id, dict[str, str](), threading.Lock()
        self._bar = tqdm(total=total, initial=done, unit="img", unit_scale=True, disable=quiet or None, desc="train")

    def point(self, point: dict[str, Any]) -> None:
        with self._lock:
            values = point["values"]
            log.info("point", extra={"facts": {"run": self._run_id, "samples": point["samples"], **values}})
            shown = {label: form.format(values[name]) for name, (label, form) in _SHOWN.items() if name in values}
            self._shown |= shown
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(max(0, point["samples"] - self._bar.n))

    def close(self) -> None:
        self._bar.close()
