"""What training changes: weights, their moving average, the optimizer, the position. It starts, resumes, is saved."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from focusvit.data.batch import Batch
from focusvit.data.draws import draws_facts
from focusvit.data.order import key_of
from focusvit.drop_in.host_model import build_model
from focusvit.model.groups import freeze
from focusvit.model.model import FocusViT
from focusvit.runs.checkpoint import (
    STATE,
    Checkpoint,
    fill,
    is_weights_file,
    read_checkpoint,
    read_tensors,
    record_at,
    save_checkpoint,
)
from focusvit.runs.config_json import to_json
from focusvit.runs.optimizer_state import fill_optimizer, optimizer_tensors
from focusvit.runs.run_dir import RunDir
from focusvit.runs.writer import CheckpointWriter
from focusvit.weights.head import probe_head
from focusvit.weights.pretrained import load_pretrained, resize_positions
from pipeline.errors import UsageError

from . import ranks
from .config import TrainConfig
from .guard import Guard
from .optim import build_optimizer
from .step import MovingAverage

if TYPE_CHECKING:
    from pipeline.shards.dataset import Dataset


log = logging.getLogger(__name__)
HEAD_SAMPLES = 20_000  # of each rank, to fit the head to: more change it little and take memory


class Learner:
    """The state of one training on one rank; the same on every rank."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        torch.manual_seed(key_of("weights", config.seed))
        self.model = build_model(config.model).to(device).train()
        try:
            freeze(self.model, config.freeze)
            self.optimizer = build_optimizer(self.model, config.optim)
        except ValueError as error:  # a pattern without a weight
            raise UsageError(f"freeze or optim.lr_scales: {error}.") from None
        self.ema = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self._names = {id(p): name for name, p in self.model.named_parameters()}
        self.guard = Guard(config.optim.spike_factor, device)
        self._staged: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        self.samples_seen = 0
        self.metrics: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        """what the run has counted up to the checkpoint that it went on from"""

    def start(self, run: RunDir, samples_seen: int | None) -> None:
        """Go on from the checkpoint of `run` at `samples_seen`; without one from `init_from`, else fresh weights."""
        if samples_seen is not None:
            self._resume(run.checkpoint_uri(samples_seen))
        elif self.config.init_from:
            self._begin_from(self.config.init_from)
            if self.ema:
                self.ema = MovingAverage(self.model, self.ema.decay)

    @torch.no_grad()
    def probe_head(self, batches: Iterable[Batch]) -> None:
        """Fit the head to the frozen features of these batches (this rank's part of a split), alike on every rank."""
        parts: list[Tensor] = []
        was_training = self.model.training
        self.model.eval()
        for batch in batches:
            here = batch.to(next(self.model.parameters()).device)
            found = self.model.features(here.images, here.maps, here.num_tokens).double()
            parts.append(torch.cat([here.class_ids[:, None].double(), found], 1).cpu())
            if sum(map(len, parts)) >= HEAD_SAMPLES:
                break
        self.model.train(was_training)
        table = torch.cat(ranks.gather(torch.cat(parts)))
        weight, bias = probe_head(table[:, 1:], table[:, 0].long(), self.config.model.num_classes)
        head = self.model.head
        assert isinstance(head, nn.Linear)  # for_dataset has given it its outputs
        head.weight.copy_(weight)
        head.bias.copy_(bias)
        if self.ema:
            self.ema = MovingAverage(self.model, self.ema.decay)

    def _begin_from(self, uri: str) -> None:
        """Weights of one of our checkpoints, of another library's host, or of a plain ViT's file; with a new head."""
        model, is_file = self.model, is_weights_file(uri)
        if is_file and not isinstance(model, FocusViT):
            raise UsageError(f"init_from {uri} is a file of weights; a host takes the folder that its library saved.")
        if not is_file:
            record, weights = read_checkpoint(uri)
        try:
            if is_file and isinstance(model, FocusViT):
                report = load_pretrained(model, uri)
                if ranks.rank() == 0:
                    log.warning("init_from %s: %s", uri, report)
                return
            if isinstance(model, FocusViT) and "pos_embed" in weights and model.pos_embed is not None:
                weights["pos_embed"] = resize_positions(weights["pos_embed"], model)  # maybe of another image size
        except ValueError as error:
            raise UsageError(f"init_from {uri}: {error}.") from None
        fill(model, weights, record.uri, skip=("head.",))

    def _resume(self, uri: str) -> None:
        record = record_at(uri)
        weights, state = read_tensors(record), read_tensors(record, STATE)
        device = next(self.model.parameters()).device
        if self.ema:
            fill(self.model, weights, uri)  # only to see that all of them are there
            self.ema.weights = {name: value.to(device) for name, value in weights.items()}
            weights = {k.removeprefix("raw."): v for k, v in state.items() if k.startswith("raw.")}
        fill(self.model, weights, uri)
        fill_optimizer(self.optimizer, state, self._names)
        self.guard.fill(state)
        self.samples_seen, self.metrics = record.samples_seen, dict(record.metrics)
        self.counters = dict(record.counters)

    def seed_step(self, rank: int) -> None:
        """Randomness inside the step (drop path) depends on the position and the rank alone: no RNG state to save."""
        torch.manual_seed(key_of("step", self.config.seed, self.samples_seen, rank))

    def stepped(self, samples_seen: int) -> None:
        """Note that the step ending at `samples_seen` is done."""
        self.samples_seen = samples_seen
        if self.ema:
            self.ema.update(self.model, samples_seen // self.config.global_batch)

    @contextmanager
    def scored_weights(self) -> Iterator[None]:
        """Inside, the model has the weights that are scored: the moving average where one is kept."""
        if not self.ema:
            yield
            return
        raw = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(raw)

    def fingerprint(self) -> float:
        """A sum over all weights. Ranks that took the same steps have the same, to the last bit."""
        return float(torch.stack([p.detach().sum(dtype=torch.float64) for p in self.model.parameters()]).sum())

    def save(
        self,
        run: RunDir,
        data: "Dataset",
        writer: CheckpointWriter,
        counters: dict[str, int] | None = None,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy this moment and let `writer` make a checkpoint of it (rank 0 only), after it has done `first`. Scores
        come later (`add_scores`)."""
        weights: dict[str, Tensor] = self.ema.weights if self.ema else self.model.state_dict()
        state = {**optimizer_tensors(self.optimizer, self._names), **self.guard.tensors()}
        if self.ema:
            state.update({f"raw.{name}": value for name, value in self.model.state_dict().items()})
        split = data.split(self.config.data.train_split)
        info: dict[str, Any] = run.info()
        record = Checkpoint(
            config=to_json(self.config),
            model=to_json(self.config.model),
            classes=() if self.config.label_free else tuple(data.classes),
            samples_seen=self.samples_seen,
            data_uri=data.uri,
            data_identity=split.identity,
            data_root_hash=split.root_hash.hex(),
            superpixels=to_json(data.superpixels),
            image=dict(data.image),
            run_id=info.get("run_id"),
            has_ema=self.ema is not None,
            counters=counters or {},
            versions={"torch": torch.__version__, **{k: str(v) for k, v in draws_facts(self.config.data).items()}},
        )
        uri = run.checkpoint_uri(self.samples_seen)
        writer.wait()  # the last checkpoint is written from the memory that is copied to now
        weights, state = _copied(weights, self._staged[0]), _copied(state, self._staged[1])

        def write() -> None:
            first()
            save_checkpoint(uri, record, weights, state)
            run.prune()

        writer.submit(write)


def _copied(tensors: dict[str, Tensor], staged: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, in memory of their own: the training goes on changing the originals. `staged` keeps that memory,
    since asking the system for 100 MB anew takes longer than filling them."""
    for name, value in tensors.items():
        if name not in staged:
            staged[name] = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
    with torch.no_grad():
        torch._foreach_copy_([staged[name] for name in tensors], [value.detach() for value in tensors.values()])
    return {name: staged[name] for name in tensors}
