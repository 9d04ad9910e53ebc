"""Where a training's batches come from: the shards at a `data_uri`, or loaders that the caller brings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from focusvit.data.batch import Batch

from .config import TrainConfig

if TYPE_CHECKING:
    from pipeline.shards.dataset import Dataset


class TrainBatches(Protocol):
    """This rank's slice of each global batch, from `samples_seen` on; the training sets both numbers when it starts."""

    samples_seen: int
    total_samples: int | None

    def __iter__(self) -> Iterator[Batch]: ...


class EvalBatches(Protocol):
    """This rank's part of the eval split, each sample once over all ranks; iterated at every scoring."""

    num_samples: int
    num_classes: int

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """Batches, and the data set that they are of."""

    data: "Dataset"
    """tells sizes, classes and identities of the two splits that the config names"""
    train: TrainBatches
    eval: EvalBatches


def scored_batches(
    data: "Dataset", config: TrainConfig, split: str, device: torch.device, rank: int, world_size: int
) -> EvalBatches:
    """This rank's part of a split in its fixed views."""
    from focusvit.data.loader import EvalLoader  # with OpenCV, which batches of a caller do without

    return EvalLoader(
        data.split(split),
        config.data,
        batch_size=max(1, min(256, config.micro_batch or config.global_batch // world_size)),
        rank=rank,
        world_size=world_size,
        tokens=config.model.tokens,
        with_maps=config.model.needs_maps,
        pin_memory=device.type == "cuda",
    )


def in_stretches(loader: TrainBatches, ends: set[int], global_batch: int) -> Iterator[Batch]:
    """All batches, those of a training that goes on from `loader.samples_seen`. Before the last one of each stretch,
    which ends at a step of `ends`, the loader's processes are gone: what comes next, a scoring, starts its own, and
    never do both wait side by side."""
    seen, total = loader.samples_seen, loader.total_samples
    assert total is not None
    while seen < total:
        loader.samples_seen = seen
        for batch in loader:
            seen += global_batch
            if seen // global_batch in ends:
                break
            yield batch
        else:
            return
        yield batch  # the loop is left, and its iterator with the processes gone


def of_shards(data: "Dataset", config: TrainConfig, device: torch.device, rank: int, world_size: int) -> Loaders:
    """The loaders that read, decode and augment the shards of `data`."""
    from focusvit.data.loader import TrainLoader  # with OpenCV, which batches of a caller do without

    tokens, with_maps, pin = config.model.tokens, config.model.needs_maps, device.type == "cuda"
    train = TrainLoader(
        data.split(config.data.train_split),
        config.data,
        seed=config.seed,
        global_batch=config.global_batch,
        token_budgets=config.token_budgets,
        rank=rank,
        world_size=world_size,
        tokens=tokens,
        with_maps=with_maps,
        pin_memory=pin,
    )
    scored = scored_batches(data, config, config.data.eval_split, device, rank, world_size)
    return Loaders(data=data, train=train, eval=scored)
