"""The arithmetic of the scale bench."""

import pytest

from pipeline.bench_scale import ScaleConfig, busy_share, limits


def test_busy_share_counts_gaps_and_leaves_out_both_ends() -> None:
    full = [(t, t + 1.0) for t in (0.0, 1.0, 2.0, 3.0) for _ in range(2)]
    assert busy_share(full, 2, 0.5) == pytest.approx(1.0)
    gaps = [(t, t + 0.9) for t in (0.0, 1.0, 2.0, 3.0) for _ in range(2)]
    assert busy_share(gaps, 2, 1.0) == pytest.approx(0.9)


def test_limits_are_the_cpus_that_use_a_part_up() -> None:
    config = ScaleConfig(ms_per_image=10.0, network_mb_per_s=1100.0, storage_mb_per_s=1530.0)
    assert dict(limits(config, 2.0)) == {
        "driver (its CPU time per task)": pytest.approx(5000),
        "network of 1100 MB/s each way": pytest.approx(100),
        "storage of 1530 MB/s": pytest.approx(100),
    }
    with pytest.raises(ValueError, match="at least 4 for each"):
        ScaleConfig(tasks=10)
