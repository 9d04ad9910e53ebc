"""Where the verbs that look after a data set do their work, shard by shard."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.shards.build import ShardSpec
from pipeline.shards.executors import run_local, run_ray


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The options of such a verb."""

    workers: int | None = None
    """Shards handled at a time; by default one for each CPU. 0 runs in this process."""
    ray_address: str | None = None
    """A running Ray cluster to use; by default processes of this machine."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; it must be at least 0")
        if self.workers == 0 and self.ray_address:
            raise ValueError("--workers 0 (in this process) and --ray-address exclude each other")

    def run(self, specs: Sequence[ShardSpec], work: Callable[[ShardSpec], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Results as they finish; raises as the executors."""
        if self.ray_address:
            return run_ray(specs, address=self.ray_address, workers=self.workers, work=work)
        return run_local(specs, workers=self.workers, work=work)
