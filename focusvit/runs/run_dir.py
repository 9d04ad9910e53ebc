"""A run directory: what a training was asked to do, what it measured, and its checkpoints.

    config.json             the resolved config, the data set identity; written once, compared on every later start
    run.json                tracking URI, experiment and MLflow run id; written before step 0
    metrics.jsonl           the points of the curves (`metrics_log`)
    checkpoints/<samples>/  complete if and only if checkpoint.json is there (it is written last)
    stop                    while it is there, a training saves and ends at its next point

The directory may be local or in an object store. Only rank 0 writes. The JSON files carry a sha256 of their content: a
damaged one is said by name and made anew from what else is known, so that it never ends a run.
"""

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.io import storage

from .config_json import difference, flatten
from .sealed_json import put_sealed, read_sealed

log = logging.getLogger(__name__)

# These change where and how fast a run works, never its result: another value may continue the same run.
SPEED_ONLY = frozenset(
    {
        "data.loader_workers",
        "data.prefetch",
        "data.cache_dir",
        "data.cache_limit_gb",
        "data.check_shards",
        "distill.cache_dir",
        "micro_batch",
        "checkpoint_every_epochs",
        "log_every_steps",
        "compile",
        "model.micro_batches",
        "model.checkpoint_blocks",
    }
)


class RunDir:
    """Names and small files of one run directory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def path(self, *names: str) -> str:
        return storage.join(self.uri, *names)

    def prepare(
        self,
        config: dict[str, Any],
        facts: dict[str, Any],
        *,
        defaults: dict[str, Any] | None = None,
        write: bool = True,
    ) -> None:
        """Write `config.json`, or check that the one there asks for the same run.

        `facts` (data set identity, classes) must agree as well. A key that an older version did not know had its
        value of `defaults` then. Raises `UsageError` with the differing keys.
        """
        found = self.asked()
        if found is None:
            if write:
                put_sealed(self.path("config.json"), {"config": config, "facts": facts})
            return
        now = flatten(config)
        before_it_existed = {key: value for key, value in flatten(defaults or {}).items() if key in now}
        asked_then = {**before_it_existed, **flatten(found["config"])}
        changed = difference(asked_then, config, SPEED_ONLY)
        changed += difference({**found["facts"], "draws": None}, {**facts, "draws": None})
        if not changed and found["facts"].get("draws") != facts.get("draws"):
            raise UsageError(
                f"{self.uri} holds a run whose colours and mixing were drawn by another release (draws "
                f"{found['facts'].get('draws', 1)}; this one has draws {facts.get('draws', 1)}): going on would "
                "change them in the middle. Finish it with that release, or take another --run-dir to start anew."
            )
        if changed:
            raise UsageError(
                f"{self.uri} holds a run with another config: {'; '.join(changed[:6])}"
                f"{' and more' if len(changed) > 6 else ''} (there -> asked now). "
                "Take another --run-dir for the new config, or ask for the old values to go on with the old run."
            )

    def asked(self) -> dict[str, dict[str, Any]] | None:
        """What the run was asked to do: `config` and `facts`. Where config.json is damaged, what the newest readable
        checkpoint says it was made with; None before the first start, and when nothing tells any more.
        """
        place = self.path("config.json")
        if not storage.exists(place):
            return None
        try:
            found = read_sealed(place)
            if isinstance(found.get("config"), dict) and isinstance(found.get("facts"), dict):
                return found
            reason = f"{place} is damaged: it holds no config and facts."
        except DataError as error:
            reason = str(error)
        for samples in reversed(self.checkpoints()):
            place = storage.join(self.checkpoint_uri(samples), "checkpoint.json")
            try:
                made = read_sealed(place)
                facts = {"data_identity": made["data_identity"], "num_classes": made["model"]["num_classes"]}
                if "draws" in made.get("versions", {}):
                    facts["draws"] = int(made["versions"]["draws"])
                found = {"config": made["config"], "facts": facts}
            except (DataError, KeyError, TypeError, ValueError):
                continue
            log.warning("%s What the run was asked to do is taken from %s.", reason, place)
            return found
        log.warning("%s It is written anew from what is asked now.", reason)
        return None

    def info(self) -> dict[str, Any]:
        """What `run.json` says; empty before the first start, and when it is damaged (which is said)."""
        place = self.path("run.json")
        try:
            return read_sealed(place) if storage.exists(place) else {}
        except DataError as error:
            log.warning("%s The run goes on as a new one of the tracking store.", error)
            return {}

    def set_info(self, values: dict[str, Any]) -> None:
        put_sealed(self.path("run.json"), {**self.info(), **values})

    def ask_to_stop(self) -> None:
        """Ask a running training to make a checkpoint and end; `touch RUN/stop` does the same."""
        storage.put(self.path("stop"), b"")

    def asked_to_stop(self) -> bool:
        return storage.exists(self.path("stop"))

    def forget_to_stop(self) -> None:
        storage.remove(self.path("stop"))

    def forget(self) -> None:
        """Remove what a start wrote that came to nothing: no point, no checkpoint."""
        for name in ("config.json", "run.json", "error.json", "failure.txt", "started.json", "stop", "lock"):
            storage.remove(self.path(name))
        for name in ("failures", "ray"):
            storage.remove_folder(self.path(name))
        if storage.is_local(self.uri):
            with contextlib.suppress(OSError):  # something of the user's lies there
                Path(self.uri).rmdir()

    def checkpoint_uri(self, samples_seen: int) -> str:
        return self.path("checkpoints", f"{samples_seen:012d}")

    def checkpoints(self) -> list[int]:
        """Samples seen of every complete checkpoint, oldest first."""
        found = [int(name) for name in storage.list_names(self.path("checkpoints")) if name.isdigit()]
        return sorted(s for s in found if storage.exists(storage.join(self.checkpoint_uri(s), "checkpoint.json")))

    def latest(self) -> int | None:
        complete = self.checkpoints()
        return complete[-1] if complete else None

    def best(self) -> int | None:
        """The checkpoint with the highest score (val/top1, or val/cosine to a teacher); among equals the one with the
        lowest val/loss, then the newest; the newest of all without scores."""
        return next(iter(self.best_first()), None)

    def best_first(self) -> list[int]:
        """All complete checkpoints, those with the highest score first, then those without a score, newest first."""
        return sorted(self.checkpoints(), key=lambda samples: (*self._score(samples), samples), reverse=True)

    def _score(self, samples: int) -> tuple[float, float]:
        """(score, minus loss); what is not there or no number is worse than any, also of a record that cannot be read:
        whoever loads the checkpoint says so."""
        try:
            metrics = read_sealed(storage.join(self.checkpoint_uri(samples), "checkpoint.json")).get("metrics", {})
            score = float(metrics["val/top1"] if "val/top1" in metrics else metrics["val/cosine"])
            less = -float(metrics.get("val/loss", math.inf))
        except (DataError, FileNotFoundError, KeyError, TypeError, ValueError):
            return -math.inf, -math.inf
        return _or_worst(score), _or_worst(less)

    def prune(self) -> None:
        """Keep the two newest checkpoints (if one is found damaged, the other is there) and the best; what a kill left
        of others goes too. For the one writer, between two writes. `checkpoint.json` goes first, so that a rest is
        never taken.
        """
        keep = {*self.checkpoints()[-2:], self.best()}
        for folder in storage.list_names(self.path("checkpoints")):
            if folder.isdigit() and int(folder) not in keep:
                uri = self.path("checkpoints", folder)
                storage.remove(storage.join(uri, "checkpoint.json"))
                storage.remove_folder(uri)


def _or_worst(score: float) -> float:
    return -math.inf if math.isnan(score) else score
