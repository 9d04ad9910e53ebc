"""The training loop. One function, read downwards; it knows nothing of Ray or MLflow.

Pretraining and fine-tuning are this loop; one process or many run it with their rank. Everything it decides is a
function of the config, the data set and the number of samples seen, so a stopped run goes on as if it had not stopped.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from focusvit.data.batch import Batch
from focusvit.distill.features import FeatureTargets, Student, feature_scores
from focusvit.model.model import FocusViT
from focusvit.precision import tf32
from focusvit.runs.checkpoint import add_scores
from focusvit.score.scoring import is_out_of_memory, tally
from pipeline.errors import UsageError

from . import ranks
from .config import TrainConfig
from .loaders import Loaders, in_stretches
from .optim import set_lr
from .session import Session, facts_of, for_dataset
from .step import StepSums, train_step
from .watch import GENTLER, DivergedError, check_scores

__all__ = ["Loaders", "TrainConfig", "facts_of", "for_dataset", "train"]

OnCheckpoint = Callable[[int, dict[str, float]], None]
POINT_EVERY_S = 10.0
POINTS_OF_A_RUN = 100
_POLL_STEPS = 50  # asking Ray about preemption is a barrier of some milliseconds


def train(
    config: TrainConfig,
    *,
    data_uri: str = "",
    run_dir: str,
    loaders: Loaders | None = None,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    on_checkpoint: OnCheckpoint | None = None,
    poll_preemption: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Train to the end, or go on with the run in `run_dir`, and return the last scores.

    Batches come from the shards at `data_uri`, or from `loaders`. With `world_size` > 1 a process group must be
    running. `on_checkpoint(samples_seen, metrics)` is called on every rank after each checkpoint. `poll_preemption()`,
    called now and then on every rank and with the same answer on each, makes a checkpoint at once. A file `stop` in
    `run_dir` makes one and ends this call; it is looked for at each point of the curves. Raises `UsageError` when
    `run_dir` holds another run or memory does not suffice, `DataError` when too many samples do not decode,
    `DivergedError` when nothing but non-finite gradients comes.
    """
    session = Session(config, data_uri, run_dir, torch.device(device), rank, world_size, loaders)
    learner, meters, points = session.learner, session.meters, session.points
    num_samples, batch_size = session.train_split.num_samples, config.global_batch
    score_at = config.milestones(num_samples, config.eval_every_epochs)
    save_at = config.milestones(num_samples, config.checkpoint_every_epochs) | score_at

    next_point = step_of_next_point(config, learner.samples_seen // batch_size, session.num_steps)
    try:
        _score_the_start(session, score_at, on_checkpoint)
        for batch in meters.waiting(in_stretches(session.loader, score_at, batch_size)):
            seen = learner.samples_seen + batch_size
            step = seen // batch_size
            learner.seed_step(rank)
            lr = session.lr(seen)
            set_lr(learner.optimizer, lr)
            meters.add(_step(session, batch, check=step <= 2), batch)
            learner.stepped(seen)

            due = step == 1 or step >= next_point or step in save_at  # a resume begins with empty sums
            stopping = due and session.agree_to_stop()
            saving = step in save_at or stopping
            if poll_preemption is not None and step % _POLL_STEPS == 0 and poll_preemption():
                saving, poll_preemption = True, None
            if due or saving:
                values = meters.point(lr, seen / num_samples, learner.guard, learner.ema)
                next_point = step_of_next_point(config, step, session.num_steps, values["perf/step_ms"])
                session.check_damage()
                if points:
                    points.append(seen, values)
            if saving:  # before scoring, which may fail: nothing of the stretch is lost then
                session.watch.check()
                with meters.paused(), meters.blocked_by_checkpoint():
                    _save(session)
            if step in score_at:
                with meters.paused():
                    _score(session)
            if saving and on_checkpoint:
                with meters.paused():
                    on_checkpoint(seen, learner.metrics)
            if stopping:
                break
    finally:
        try:
            session.writer.wait()
        finally:
            if points:
                points.close()
    return {**learner.metrics, "samples_seen": float(learner.samples_seen)}


def _score_the_start(session: Session, score_at: set[int], on_checkpoint: OnCheckpoint | None) -> None:
    """Keep and score a head that begins as the linear probe: a training that makes it worse has it as its best
    checkpoint. Score what was saved and ended before its scores were known."""
    learner, config = session.learner, session.config
    if session.starts_from_probe:
        _save(session)
    begins_scored = config.head_start == "probe" and learner.samples_seen == 0
    if (begins_scored or learner.samples_seen // config.global_batch in score_at) and not learner.metrics:
        _score(session)
        if on_checkpoint and session.starts_from_probe:
            on_checkpoint(0, learner.metrics)


def step_of_next_point(config: TrainConfig, step: int, num_steps: int, step_ms: float | None = None) -> int:
    """The step at whose end the next point of the curves is taken, after one at `step`. By time, as the last steps
    took it (all ranks have the same measurement); before the first measurement, the next step."""
    if config.log_every_steps is not None:
        return (step // config.log_every_steps + 1) * config.log_every_steps
    by_time = 1 if step_ms is None else round(1000 * POINT_EVERY_S / max(step_ms, 1e-3))
    return step + max(1, min(by_time, num_steps // POINTS_OF_A_RUN))


def _step(session: Session, batch: Batch, check: bool) -> StepSums:
    """One step on this rank's slice. The first batches are looked at: a wrong loader is wrong at once."""
    if check:
        batch.check(session.config.model.num_classes)
    try:
        here = batch.to(session.device, non_blocking=True).finished()
        with tf32(session.config.precision, session.device):
            sums = train_step(session.model, session.learner.optimizer, here, session.step)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = session.config.micro_batch or len(batch)
        raise UsageError(
            f"memory ran out with {size} images at a time on one worker ({str(error).splitlines()[0][:200]}). "
            f"Set --micro-batch {max(1, size // 2)} (the same gradient, but for the draws of drop path), or "
            "--model.checkpoint-blocks."
        ) from None
    session.watch.remember(here, sums.grad_norm, session.learner.samples_seen)
    return sums


def _score(session: Session) -> None:
    """Score the weights of the checkpoint that was just saved, over all ranks, and add the scores to it.

    `Tally.metrics` asserts that each sample was counted once. Raises `DivergedError` when the answers are no numbers.
    """
    batches, learner = session.eval_batches, session.learner
    if session.step.features is not None:
        _score_features(session, session.step.features)
        return
    with learner.scored_weights():
        scores = tally(
            learner.model,
            batches,
            num_samples=batches.num_samples,
            num_classes=batches.num_classes,
            device=session.device,
            precision=session.config.precision,
        )
    scores.all_reduce(ranks.sum_array)
    learner.metrics = {f"val/{k}": v for k, v in scores.metrics().items() if k != "num_samples"}
    _keep_scores(session, scores.confusion, batches.num_classes)


def _score_features(session: Session, features: FeatureTargets) -> None:
    """The same for a training without labels: the cosine of the student's outputs with the teacher's features."""
    batches, learner, config = session.eval_batches, session.learner, session.config
    assert isinstance(learner.model, FocusViT)  # as the config has checked
    with learner.scored_weights():
        scores = feature_scores(
            Student(learner.model, config.distill.regions > 0),
            batches,
            features,
            share=config.distill.regions,
            device=session.device,
            precision=config.precision,
            add_up=ranks.sum_array,
            num_samples=batches.num_samples,
        )
    learner.metrics = {f"val/{name}": value for name, value in scores.items()}
    _keep_scores(session, None, 2)


def _keep_scores(session: Session, confusion: np.ndarray | None, num_classes: int) -> None:
    """Write the scores to the curves and into the checkpoint that was just saved. Raises `DivergedError`."""
    learner = session.learner
    if session.points:
        session.points.append(learner.samples_seen, learner.metrics)
    check_scores(learner.metrics, num_classes, learner.samples_seen)
    if session.points:
        uri, metrics, points = session.run.checkpoint_uri(learner.samples_seen), dict(learner.metrics), session.points

        def write() -> None:
            points.flush()  # before the checkpoint says that it is scored, or a kill would lose the point for good
            add_scores(uri, metrics, confusion)
            session.run.prune()

        session.writer.submit(write)


def _save(session: Session) -> None:
    """Check that all ranks hold the same weights and that these are numbers, then write a checkpoint from rank 0.

    Raises `DivergedError` on every rank; the checkpoint before stays the latest.
    """
    learner = session.learner
    sum_of_weights = learner.fingerprint()
    finite = math.isfinite(sum_of_weights)
    ranks.check_same(sum_of_weights if finite else math.inf, "the weights")  # NaN would not be equal to itself
    if not finite:
        raise DivergedError(
            f"the weights were no finite numbers at {learner.samples_seen} samples, so no checkpoint was made of them. "
            f"{GENTLER}."
        )
    learner.metrics = {}
    if session.points:
        counters = {"replaced_samples": session.meters.num_replaced}
        # Points are in the store before the checkpoint that follows them: a run that goes on from it makes none again.
        learner.save(session.run, session.data, session.writer, counters, first=session.points.flush)
