"""What a shard that fails again and again says, with a real worker process."""

import logging
import os
import re
import signal
import time
import types

import pytest

from pipeline.errors import DataError
from pipeline.shards.executors import run_local
from testkit.failing_work import store_is_busy, tell_process


def test_the_reason_of_a_retry_ends_in_one_full_stop(caplog: pytest.LogCaptureFixture) -> None:
    task = types.SimpleNamespace(shard=3, name="train-000003.tar")
    with caplog.at_level(logging.WARNING), pytest.raises(DataError) as stopped:
        list(run_local([task], workers=1, work=store_is_busy))  # type: ignore[list-item]
    assert caplog.messages == [f"{task.name} is tried again ({n} of 3): Reduce your rate" for n in (2, 3)]
    assert "failed 3 times; the last time: Reduce your rate. The shards" in str(stopped.value)
    assert not re.search(r"\.\.", str(stopped.value))


def test_a_worker_that_is_killed_while_it_waits_is_replaced() -> None:
    tasks = [types.SimpleNamespace(shard=shard, name=f"train-{shard:06d}.tar") for shard in range(3)]
    results = run_local(tasks, workers=1, work=tell_process)  # type: ignore[arg-type]
    first = next(results)
    os.kill(first["pid"], signal.SIGKILL)
    time.sleep(0.5)  # the far end of its pipe closes
    rest = list(results)
    assert [result["shard"] for result in (first, *rest)] == [0, 1, 2]
    assert first["pid"] != rest[0]["pid"] == rest[1]["pid"]
