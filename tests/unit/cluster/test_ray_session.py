"""CPUs of workers and tasks: what is asked for must lie on one node, or Ray waits for ever."""

import itertools

import pytest

from cluster.ray_session import cpus_each, node_cpus, num_that_fit


@pytest.mark.parametrize("cpus", [[1, 1], [2], [4, 4], [8, 2, 1], [3, 5, 0]])
@pytest.mark.parametrize("num", [1, 2, 3, 6])
def test_the_most_that_all_can_have_against_trying_every_placement(cpus: list[int], num: int) -> None:
    def fits(each: int) -> bool:
        places = itertools.product(range(len(cpus)), repeat=num)
        return any(all(place.count(i) * each <= count for i, count in enumerate(cpus)) for place in places)

    expected = max((each for each in range(1, 9) if fits(each)), default=1)
    assert cpus_each(cpus, num) == expected
    assert num_that_fit(cpus, expected) >= num or expected == 1


def test_one_worker_on_two_nodes_of_one_cpu_asks_for_one() -> None:
    nodes = [{"Alive": alive, "Resources": {"CPU": count}} for alive, count in ((True, 1.0), (True, 1.0), (False, 8.0))]
    assert node_cpus([*nodes, {"Alive": True, "Resources": {}}]) == [1, 1, 0]
    assert cpus_each(node_cpus(nodes), 1) == 1
