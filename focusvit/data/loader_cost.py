"""What a training sample costs the processor that loads it: measured on the data and the recipe at hand."""

import dataclasses
import statistics
import time

from pipeline.shards.dataset import Split

from .config import DataConfig
from .loader import TrainLoader

_BATCH, _BATCHES = 32, 4


def loader_cpu_s(split: Split, data: DataConfig, tokens: int | None, budgets: tuple[int, ...] = ()) -> float:
    """CPU seconds that one core takes for a training sample: read, decode, crop, draw, mix; the median of a few batches
    after the first. What the device does to the pixels is not in it. Hashes no shard. Takes a second or two.
    """
    here = dataclasses.replace(data, loader_workers=0, check_shards="none")
    options = {"rank": 0, "world_size": 1, "tokens": tokens, "token_budgets": budgets}
    total = _BATCH * (_BATCHES + 1)
    loader = TrainLoader(split, here, seed=0, global_batch=_BATCH, total_samples=total, **options)  # type: ignore[arg-type]
    spent, started = [], time.process_time()
    for _ in loader:
        now = time.process_time()
        spent.append((now - started) / _BATCH)
        started = now
    return statistics.median(spent[1:])
