"""The arithmetic of the scale bench."""

from pathlib import Path

import pytest

from pipeline.sources import detect
from tests.benchmarks.pipeline.plan import plan_table, write_sparse_archive
from tests.benchmarks.pipeline.scale import ScaleConfig, busy_share, limits


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


def test_the_sparse_archive_is_a_tar_of_tars_of_the_stated_size(tmp_path: Path) -> None:
    place = tmp_path / "train.tar"
    num_bytes = write_sparse_archive(str(place), 3, per_class=5)
    rows = list(detect(str(place), "train").images())
    assert len(rows) == 15 and {row.class_name for row in rows} == {f"n{i:08d}" for i in range(3)}
    assert all(row.length == 110_000 for row in rows) and 15 * 110_000 < num_bytes < 15 * 112_000
    assert place.stat().st_blocks * 512 < 400_000


@pytest.mark.soak
def test_planning_is_measured_in_processes_of_their_own() -> None:
    table = plan_table(3000, 2)
    assert [row[1] for row in table.rows] == [3000, 2 * 1281]
    assert all(0 < row[3] and 50 < row[5] < 2000 for row in table.rows)
