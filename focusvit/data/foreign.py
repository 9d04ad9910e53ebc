"""Batches from tars that somebody else wrote and that have no index, streamed through `webdataset`.

What this costs, beside `TrainLoader` on a data set of `focusvit preprocess`: every rank reads every byte of every tar;
a start in the middle reads everything before it; the shuffle is a buffer, not a permutation; the number of samples is
known only after an epoch; a tar that was cut between two members looks like a shorter one; tars without maps pay for
their superpixels at every epoch (about as long as a decode). What stays: global batches are the same for any number of
ranks and loader workers, views and mix partners too, and every sample comes once an epoch.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.image.image import BadImage, decode_image
from pipeline.shards.sample import Sample, decode
from pipeline.superpixels.segment import SuperpixelConfig, Superpixels, segment_image

from .batch import Batch
from .config import DataConfig
from .loader import batches_of
from .order import key_of, rank_slice
from .reader import BatchSpec, SampleReader

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp")


@dataclass(frozen=True)
class ForeignSpec(BatchSpec):
    """A task that carries its samples as webdataset gave them: bytes by suffix."""

    rows: tuple[dict[str, Any], ...] = ()


class ForeignReader(SampleReader):
    """As `SampleReader`, for samples that come with the task."""

    def __init__(self, data: DataConfig, seed: int, superpixels: SuperpixelConfig | None) -> None:
        super().__init__(None, data, seed, superpixels is not None)
        self._superpixels = superpixels
        self._rows: tuple[dict[str, Any], ...] = ()

    def __getitem__(self, spec: BatchSpec) -> Batch:
        assert isinstance(spec, ForeignSpec)
        self._rows = spec.rows
        return super().__getitem__(spec)

    def _samples(self, pairs: list[tuple[int, int]]) -> list[tuple[Sample, np.ndarray, int]]:
        """A sample that does not decode is replaced by the next of the batch that does."""
        made: list[tuple[Sample, np.ndarray] | None] = []
        for row in self._rows:
            try:
                made.append(sample_of(row, self._superpixels))
            except BadImage:
                made.append(None)
        good = [i for i, one in enumerate(made) if one is not None]
        if not good:
            raise DataError(f"none of {len(made)} samples in a row decodes, the first is {self._rows[0]['__key__']}")
        found = []
        for i, one in enumerate(made):
            stand_in = made[next((j for j in good if j >= i), good[0])]
            assert stand_in is not None
            found.append((*(one or stand_in), int(one is None)))
        return found


def sample_of(row: dict[str, Any], superpixels: SuperpixelConfig | None) -> tuple[Sample, np.ndarray]:
    """One sample of webdataset and its pixels. Its own map is used where it has one, else superpixels are computed.

    Raises BadImage, and DataError when there is no image at all or its class is no number.
    """
    key = row["__key__"]
    members = {name.lower(): value for name, value in row.items() if not name.startswith("__")}
    if {"spx.png", "merges.npy", "json"} <= members.keys():
        sample = decode(key, members)
        return sample, decode_image(sample.image)
    suffix = next((name for name in IMAGES if name in members), None)
    if suffix is None:
        raise DataError(f"sample {key} has the members {sorted(members)}: none is an image ({', '.join(IMAGES)}).")
    try:
        class_id = int(members["cls"]) if "cls" in members else None
    except ValueError:
        raise DataError(f"sample {key}: its member cls is {members['cls'][:20]!r}, not a class number.") from None
    rgb = decode_image(members[suffix])
    parts = Superpixels(np.zeros((1, 1), np.uint8), np.empty((0, 2), np.uint8))
    if superpixels is not None:
        parts = segment_image(rgb, superpixels)
    ext = "png" if suffix == "png" else "jpg"
    return Sample(key=key, image=b"", image_ext=ext, superpixels=parts, class_id=class_id, meta={}), rgb


class ForeignLoader:
    """Iterate to get this rank's slice of each global batch, as from `TrainLoader`.

    tars: places that webdataset can open. identity: what names the data, for a resume. superpixels: the settings for
    samples without a map; None = no maps at all. start_samples: read and thrown away, not sought.
    """

    def __init__(
        self,
        tars: Sequence[str],
        data: DataConfig,
        *,
        identity: str,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        start_samples: int = 0,
        total_samples: int | None = None,
        tokens: int | None = None,
        superpixels: SuperpixelConfig | None = None,
        shuffle_buffer: int = 1000,
    ) -> None:
        if global_batch < world_size:
            raise UsageError(f"A global batch of {global_batch} gives some of {world_size} workers no sample.")
        if superpixels is None and tokens is not None:
            raise UsageError(
                f"tokens is {tokens}, but superpixels is None: say how maps are made, or ask for no tokens."
            )
        cv2.setNumThreads(0)
        self.samples_seen, self.total_samples, self.global_batch = start_samples, total_samples, global_batch
        self._tars, self._data, self._seed, self._identity = list(tars), data, seed, identity
        self._slice, self._tokens, self._buffer = rank_slice(global_batch, rank, world_size), tokens, shuffle_buffer
        self._reader = ForeignReader(data, seed, superpixels)

    def _stream(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(epoch, sample) for ever; each epoch has its own order of tars and of its buffer."""
        import webdataset as wds  # two seconds that only foreign tars should pay

        epoch = 0
        while True:
            rng = random.Random(key_of("foreign", self._seed, epoch, self._identity))
            tars = rng.sample(self._tars, len(self._tars))
            # Every rank reads everything: this alone keeps its slices exact without an index.
            rows = wds.WebDataset(tars, shardshuffle=False, nodesplitter=lambda urls: urls, empty_check=False)
            count = 0
            for row in rows.shuffle(self._buffer, initial=self._buffer, rng=rng) if self._buffer > 1 else rows:
                count += 1
                yield epoch, row
            if count == 0:
                raise DataError(f"no sample in {len(self._tars)} tars, of which {tars[0]} is one.")
            epoch += 1

    def _specs(self) -> Iterator[ForeignSpec]:
        start = self.samples_seen
        stream = islice(self._stream(), start, None)
        first, last = self._slice
        while self.total_samples is None or start < self.total_samples:
            rows = list(islice(stream, self.global_batch))
            mine = rows[first:last]
            if self._data.mix.on:  # the partner of a sample is the next one of the global batch
                mine.append(rows[last % self.global_batch])
            positions = np.arange(start + first, start + last) if self._data.mix.on else np.empty(0, np.int64)
            yield ForeignSpec(
                np.array([key_of("sample", row["__key__"]) for _, row in mine]),
                np.array([epoch for epoch, _ in mine]),
                self._tokens,
                positions=positions,
                rows=tuple(row for _, row in mine),
            )
            start += self.global_batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in batches_of(self._reader, self._specs(), self._data):
            self.samples_seen += self.global_batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"samples_seen": self.samples_seen, "seed": self._seed, "identity": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position, for the next `iter`, which reads everything before it. UsageError for other data."""
        if (state["identity"], state["seed"]) != (self._identity, self._seed):
            raise UsageError(f"The position {state} belongs to other data or another seed than {self.state_dict()}.")
        self.samples_seen = int(state["samples_seen"])
