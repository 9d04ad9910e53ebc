"""Who has the GPUs that a training waits for."""

from cluster.train.waiting import holders


def group(job: str, state: str, *gpus: float) -> dict:
    bundles = {number: {"CPU": 1.0, **({"GPU": count} if count else {})} for number, count in enumerate(gpus)}
    return {"placement_group_id": f"0123456789abcdef0123456789ab{job}", "state": state, "bundles": bundles}


def test_other_jobs_are_named_with_what_they_hold_the_most_first() -> None:
    groups = {
        "a": group("02000000", "CREATED", 1, 1),
        "b": group("03000000", "CREATED", 3),
        "c": group("02000000", "CREATED", 0.5),
        "d": group("04000000", "PENDING", 8),  # waits as we do
        "e": group("05000000", "REMOVED", 8),
        "f": group("06000000", "CREATED", 0),  # CPUs only
        "g": group("01000000", "CREATED", 4),  # our own
    }
    found = holders("GPU", groups, "01000000", {"02000000": "python train.py on 10.0.0.7"})
    assert found == ["job 03000000 (unknown command): 3", "job 02000000 (python train.py on 10.0.0.7): 2.5"]
    assert holders("GPU", {}, "01000000", {}) == []
