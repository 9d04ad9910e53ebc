"""The global order of samples: a function of (seed, epoch, data set identity) and of nothing else.

Positions count samples over the whole training: position p is the p % N-th sample of epoch p // N. A global batch is
the next `global_batch` positions; a rank takes a slice of it, and slices may differ by one. So the number of ranks and
of loader workers never changes what is seen, and any position is found without reading what came before it.

Within an epoch shards are permuted and taken in blocks of `block_shards`; samples are shuffled inside a block. Reads
stay near each other (a block of shards fits a page cache or a local cache), and a batch mixes many shards.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def key_of(*parts: object) -> int:
    """A 63-bit number from any values, the same on every machine: the seed of everything that is keyed."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Order:
    """The order of one split. Holds one number per shard; a block of an epoch is shuffled when it is needed."""

    def __init__(self, shard_sizes: NDArray[np.integer], seed: int, identity: str, block_shards: int = 16) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        if len(self.shard_sizes) == 0 or int(self.shard_sizes.sum()) == 0:
            raise ValueError("an order needs at least one sample")
        self.num_samples = int(self.shard_sizes.sum())
        self._first_of_shard = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        self._seed, self._identity, self.block_shards = seed, identity, block_shards
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._blocks: dict[tuple[int, int], NDArray[np.int64]] = {}

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the order in which the epoch takes them, and where its blocks of `block_shards` begin."""
        if epoch not in self._epochs:
            rng = np.random.default_rng(key_of("shards", self._seed, epoch, self._identity))
            shards = rng.permutation(len(self.shard_sizes))
            sizes = self.shard_sizes[shards]
            block_sizes = np.add.reduceat(sizes, np.arange(0, len(sizes), self.block_shards))
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}
            self._epochs[epoch] = shards, np.concatenate([[0], np.cumsum(block_sizes)])
        return self._epochs[epoch]

    def _block(self, epoch: int, block: int) -> NDArray[np.int64]:
        if (epoch, block) not in self._blocks:
            shards = self._epoch(epoch)[0][block * self.block_shards : (block + 1) * self.block_shards]
            ids = np.concatenate([np.arange(self._first_of_shard[s], self._first_of_shard[s + 1]) for s in shards])
            rng = np.random.default_rng(key_of("samples", self._seed, epoch, block, self._identity))
            while len(self._blocks) >= 4:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[epoch, block] = rng.permutation(ids)
        return self._blocks[epoch, block]

    def shards_from(self, position: int, blocks: int) -> list[int]:
        """The shards of the block that holds `position`, then of the blocks after it, over epoch borders."""
        found: list[int] = []
        for _ in range(blocks):
            epoch, offset = divmod(position, self.num_samples)
            shards, borders = self._epoch(epoch)
            block = int(np.searchsorted(borders, offset, side="right")) - 1
            found += shards[block * self.block_shards : (block + 1) * self.block_shards].tolist()
            position = epoch * self.num_samples + int(borders[block + 1])
        return list(dict.fromkeys(found))

    def sample_ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """The samples at positions start..stop-1, over epoch borders."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.num_samples)
            borders = self._epoch(epoch)[1]
            block = int(np.searchsorted(borders, offset, side="right")) - 1
            end = min(int(borders[block + 1]) - offset, stop - start)
            first = offset - int(borders[block])
            parts.append(self._block(epoch, block)[first : first + end])
            start += end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def rank_slice(size: int, rank: int, world_size: int) -> tuple[int, int]:
    """The part [start, stop) of `size` things that rank `rank` takes. Parts differ by at most one and cover all."""
    return size * rank // world_size, size * (rank + 1) // world_size
