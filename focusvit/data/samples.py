"""One split as a plain `torch.utils.data.Dataset`, for training loops of one's own and other libraries' trainers."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.io import storage
from pipeline.shards.dataset import open_dataset

from .config import DataConfig
from .reader import BatchSpec, SampleReader


class ShardDataset(Dataset[dict[str, Tensor]]):
    """The samples of a split by number: dicts of `image` uint8 (3, image_px, image_px), `label` int64 (), -1 without
    one, and with `tokens` also `map` (map_px, map_px) of ids 0..tokens-1. torch's own DataLoader makes batches of them:

        for batch in DataLoader(ShardDataset("shards", "train", tokens=64), batch_size=32, shuffle=True):
            logits = model(batch["image"], batch["map"])

    Views are the fixed ones of evaluation; with `random_views` those that a training with `seed` has in its epoch
    `epoch` (an attribute to set before each epoch). `focusvit pretrain` reads faster, and in an order that can resume.
    """

    def __init__(
        self,
        data: str,
        split: str = "train",
        *,
        tokens: int | None = None,
        config: DataConfig | None = None,
        random_views: bool = False,
        seed: int = 0,
    ) -> None:
        """`data`: a folder or URI that `focusvit preprocess` wrote; `config`: image_px, map_px, crops, colour.

        Raises:
            UsageError: no such data set or split.
        """
        self._dataset = open_dataset(storage.resolve(data))
        self._split = self._dataset.split(split)
        self._tokens, self._random = tokens, random_views
        self.epoch = 0
        self._reader = SampleReader(self._split, config or DataConfig(), seed, tokens is not None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; a label is a place in this list."""
        return self._dataset.classes

    def __len__(self) -> int:
        return self._split.num_samples

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Raises IndexError, and DataError for a sample that does not decode."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        epoch = self.epoch if self._random else -1
        batch = self._reader[BatchSpec(np.array([number % len(self)]), np.array([epoch]), self._tokens)]
        found = {"image": batch.images[0], "label": batch.class_ids[0]}
        return found if batch.maps is None else found | {"map": batch.maps[0]}
