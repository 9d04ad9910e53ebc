"""What workers get: nothing falls back in silence, what does not fit is refused with both numbers and what fits."""

import dataclasses
from typing import Any

import pytest

from cluster.train.launch import LaunchConfig
from cluster.train.placement import Placement, place, within_memory
from focusvit.recipes.small import debug
from pipeline.errors import UsageError


def launch(**changes: Any) -> LaunchConfig:
    return LaunchConfig(data="/d", run_dir="/r", **changes)


def nodes(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in pairs]


@pytest.mark.parametrize(
    ("workers", "device", "gpus", "expected"),
    [
        ("4", "auto", 4, "gpu"),
        ("1-8", "auto", 4, "gpu"),  # the smallest wanted number decides, not the largest
        ("2-8", "auto", 2, "gpu"),
        ("8", "cpu", 4, "cpu"),
        ("8", "auto", 0, "cpu"),
        ("1-8", "gpu", 1, "gpu"),
    ],
)
def test_gpus_are_used_when_the_smallest_wanted_number_fits(
    workers: str, device: str, gpus: int, expected: str
) -> None:
    found = place(launch(workers=workers, device=device), 2, nodes((32, gpus)))
    assert found.device == expected and f" on {expected}, " in found.line()


@pytest.mark.parametrize(("workers", "gpus"), [("8", 4), ("2", 1), ("3-8", 2)])
@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_a_number_of_gpus_that_does_not_fit_is_refused_with_both(workers: str, gpus: int, device: str) -> None:
    low = workers[0]
    with pytest.raises(UsageError, match=f"{low} workers want {low} GPUs; Ray sees {gpus}. Use --workers {gpus}"):
        place(launch(workers=workers, device=device), 2, nodes((32, gpus)))


def test_an_autoscaler_can_be_asked_for_gpus_that_are_not_there() -> None:
    found = place(launch(workers="4", device="gpu", autoscaled=True, cpus_per_worker=6), 2, nodes((4, 0)))
    assert (found.device, found.cpus) == ("gpu", 6) and "has 0 GPUs now; its autoscaler is asked" in found.notes[0]
    found = place(launch(workers="2", autoscaled=True), 1, nodes((4, 0)))
    assert found.device == "cpu" and "--device gpu asks for GPUs" in found.notes[0]
    with pytest.raises(UsageError, match=r"needs 4 GPUs; Ray sees 0. Use --device cpu, or --autoscaled"):
        place(launch(workers="4", device="gpu"), 2, nodes((4, 0)))
    assert place(launch(workers="8", autoscaled=True), 0, nodes((2, 0))).cpus == 1


def test_more_workers_than_cpus_get_the_options_that_fit() -> None:
    with pytest.raises(UsageError, match=r"8 workers with 1 CPUs each do not fit: .* 2 CPUs. What fits: --workers 2"):
        place(launch(workers="8"), 0, nodes((2, 0)))
    with pytest.raises(
        UsageError, match=r"What fits: --workers 2 --cpus-per-worker 2 or --workers 1 --cpus-per-worker 3"
    ):
        place(launch(workers="2", cpus_per_worker=3), 0, nodes((4, 0)))
    with pytest.raises(UsageError, match="What fits: --workers 1 --cpus-per-worker 4"):
        place(launch(workers="1", cpus_per_worker=8), 0, nodes((4, 0), (4, 0)))
    with pytest.raises(UsageError, match=r"have 0 CPUs\. No worker fits"):
        place(launch(workers="1"), 0, nodes((0, 0)))
    for options in ({"workers": "2"}, {"workers": "2", "cpus_per_worker": 2}, {"workers": "1", "cpus_per_worker": 3}):
        place(launch(**options), 0, nodes((4, 0)))  # what was offered


@pytest.mark.parametrize(("cpus", "gpus", "workers", "loaders"), [(2, 0, "2", 1), (8, 0, "2", 4), (16, 2, "2", 7)])
def test_loader_processes_are_capped_by_cpus(cpus: int, gpus: int, workers: str, loaders: int) -> None:
    found = place(launch(workers=workers), 12, nodes((cpus, gpus)))
    assert found.loader_workers == loaders and f"{loaders} loader processes a worker instead of 12" in found.notes[0]
    assert place(launch(workers=workers), 1, nodes((cpus, gpus))).notes == ()


CONFIG = dataclasses.replace(debug(), global_batch=64)
FOUND = Placement(low=2, high=2, device="cpu", cpus=8, loader_workers=6)


def test_memory_that_does_not_suffice_costs_loaders_first_and_is_refused_then() -> None:
    assert within_memory(FOUND, CONFIG, 100e9, 1e9, 1e6) == FOUND
    tight = within_memory(FOUND, CONFIG, 8e9, 1e9, 1e6)
    assert 0 < tight.loader_workers < 6
    assert f"{tight.loader_workers} loader processes a worker instead of 6: the training would take" in tight.notes[0]
    assert "8.0 GB are free" in tight.notes[0]
    # 2 x (0.6 + 0.4 GB) and 2 x 32 images of 0.1 GB = 8.4 GB; 5 GB x 0.9 leave room for 12 images.
    with pytest.raises(UsageError, match=r"about 8\.4 GB .* 5\.0 GB are free. What fits: --micro-batch 12 "):
        within_memory(FOUND, CONFIG, 5e9, 0.4e9, 0.1e9)
    fits = dataclasses.replace(CONFIG, micro_batch=12)
    assert within_memory(FOUND, fits, 5e9, 0.4e9, 0.1e9).loader_workers == 0
    with pytest.raises(UsageError, match="Take a smaller model"):
        within_memory(FOUND, CONFIG, 1e9, 4e9, 1e9)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"workers": "2"}, "--workers"), ({"workers": "1-2"}, "--workers"), ({"ray_address": "auto"}, "--ray-address"),
     ({"max_failures": 3}, "--max-failures"), ({"autoscaled": True}, "--autoscaled"),
     ({"score_on": "a=b"}, "--score-on")],
)  # fmt: skip
def test_what_means_nothing_without_ray_is_refused_beside_local(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}: of Ray, and --local"):
        launch(local=True, **options)
    assert launch(**options).here() == launch(local=True)
    assert launch().restarts == 3 and launch(max_failures=0).restarts == 0
