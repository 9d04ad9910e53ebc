"""Where the verbs that look after a data set do their work, shard by shard."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.options import Workers
from pipeline.shards.build import ShardSpec
from pipeline.shards.executors import run_local, run_ray


def run_shards(
    where: Workers, specs: Sequence[ShardSpec], work: Callable[[ShardSpec], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Results as they finish; raises as the executors."""
    if where.ray_address:
        return run_ray(specs, address=where.ray_address, workers=where.workers, work=work)
    return run_local(specs, workers=where.workers, work=work)
