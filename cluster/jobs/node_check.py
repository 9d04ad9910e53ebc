"""Before a job works: one task on every node tells what it has, and what differs is named.

A node with another version of our code, another JPEG encoder or no access to the storage would otherwise fail hours
later, or, worse, write other bytes than its neighbours.
"""

import importlib
import platform
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.doctor.finding import Finding, broken, ok, warning
from cluster.doctor.machine import check_fast_slic
from pipeline.errors import last_line
from pipeline.io import storage
from pipeline.io.machine import cpu_flags, version_of

from .package import PACKAGES, checkout_root, fingerprint
from .places import Place

NODE_TIMEOUT_S = 120.0  # a fresh worker unpacks the code and imports OpenCV first
# Those that decide over bytes and numbers; they must be the same everywhere.
COMPARED = ("ray", "torch", "numpy", "numba", "opencv-python-headless", "fast-slic", "webdataset", "pyarrow", "fsspec")
Facts = dict[str, Any]  # plain data: a node with other code must be able to answer too


def node_facts(marks: Sequence[tuple[Place, str]] = ()) -> Facts:
    """What the node that runs this has. `marks` are the places to try, each with the driver's mark in it."""
    import ray

    slic = check_fast_slic()
    return {
        "node": f"{socket.gethostname()} ({ray.util.get_node_ip_address()})",
        "python": platform.python_version(),
        "fingerprint": fingerprint(checkout_root()),
        "foreign": [f"{name}: {where}" for name in PACKAGES if (where := _foreign(name))],
        "root": str(checkout_root()),
        "format": importlib.import_module("pipeline.shards.sample").FORMAT_VERSION,
        # Of 2.13.0+cpu on the head and 2.13.0 on GPU nodes the number alone.
        "versions": {name: (version_of(name) or "absent").split("+")[0] for name in COMPARED},
        "cpu_flags": sorted(cpu_flags()),
        "slic": [slic.level, slic.found, slic.fix],
        "places": [[place.option, place.uri, try_place(place, mark)] for place, mark in marks],
    }


def compare(driver: Facts, others: Sequence[Facts], expected_fingerprint: str) -> list[Finding]:
    """What is wrong on a node, or different from the node that runs the job."""
    findings: list[Finding] = []
    for facts in [driver, *others]:
        findings += _own_problems(facts, expected_fingerprint)
    for facts in others:
        findings += _differences(driver, facts)
    if not any(finding.level == "broken" for finding in findings):
        seen = f"{1 + len(others)} nodes run code {expected_fingerprint[:12]}, Python {driver['python']}, Ray "
        findings.append(ok("nodes", seen + str(driver["versions"]["ray"])))
    return findings


def _own_problems(facts: Facts, expected: str) -> list[Finding]:
    node, findings = f"node {facts['node']}", []
    if facts["foreign"]:
        fix = "uninstall those packages from the environment of that node"
        findings.append(broken(node, f"imports packages that are not ours: {'; '.join(facts['foreign'])}", fix))
    elif facts["fingerprint"] != expected:
        fix = "let the job's own package be used: remove FocusViT's folder from PYTHONPATH on that node"
        findings.append(broken(node, f"runs other code than was submitted, from {facts['root']}", fix))
    level, found, fix = facts["slic"]
    if level == "broken":
        findings.append(broken(node, f"fast-slic: {found}", fix))
    for option, uri, problem in facts["places"]:
        if problem:
            fix = "mount the same storage at the same path on every node, or use an s3:// or gs:// URI"
            findings.append(broken(node, f"{option} {uri}: {problem}", fix))
    return findings


def _differences(driver: Facts, facts: Facts) -> list[Finding]:
    node, findings = f"node {facts['node']}", []
    if facts["python"].split(".")[:2] != driver["python"].split(".")[:2]:
        fix = f"use one Python on all nodes: {driver['python']} as on {driver['node']}"
        findings.append(broken(node, f"Python {facts['python']}, the job runs {driver['python']}", fix))
    if facts["format"] != driver["format"]:
        fix = "let the job's own package be used on that node"
        findings.append(broken(node, f"shard format {facts['format']}, the job writes {driver['format']}", fix))
    other = [
        f"{name} {facts['versions'].get(name)} instead of {version}"
        for name, version in driver["versions"].items()
        if facts["versions"].get(name) != version
    ]
    if other:
        fix = "install constraints.txt on that node: pip install -c constraints.txt 'ray[default,train]' ..."
        findings.append(broken(node, "has " + ", ".join(other), fix))
    if facts["cpu_flags"] != driver["cpu_flags"] and facts["slic"][0] != "broken":
        mine, theirs = set(driver["cpu_flags"]), set(facts["cpu_flags"])
        fix = "none needed: maps are the same; floating-point training results may differ in the last bits"
        findings.append(warning(node, f"another CPU: {', '.join(sorted(mine ^ theirs))} on one side only", fix))
    return findings


def try_place(place: Place, mark: str) -> str:
    """Empty when the place works on this node, else what is wrong. `mark` is the file that the driver left there."""
    try:
        if place.mode == "read":
            return "" if storage.exists(place.uri) or storage.is_folder(place.uri) else "does not exist on this node"
        start, _, content = mark.rpartition("-")
        if storage.read_bytes(mark).decode() != content:
            return "holds other files than on the node that runs the job"
        own = f"{start}-{secrets.token_hex(8)}"
        storage.put(own, b"")
        storage.remove(own)
    except FileNotFoundError:
        return "this node does not see the files that the node that runs the job writes there"
    except Exception as error:  # every store refuses in its own way
        return f"{type(error).__name__}: {error}"
    return ""


def leave_mark(place: Place) -> str:
    """A small file in a place to be written, so that other nodes can look for it; its name ends with its content."""
    folder, content = place.uri, secrets.token_hex(8)
    if storage.is_local(folder):  # nothing is made that the job itself might not want
        folder = str(next(path for path in [Path(folder), *Path(folder).parents] if path.is_dir()))
    mark = storage.join(folder, f".focusvit-mark-{content}")
    storage.put(mark, content.encode())
    return mark


def check_nodes(places: Sequence[Place], expected_fingerprint: str, *, all_nodes: bool) -> list[Finding]:
    """Ask every node of the connected cluster (`all_nodes`), or only this one, and compare."""
    marks: list[tuple[Place, str]] = []
    unwritable = []
    try:
        for place in places:
            try:
                marks.append((place, leave_mark(place) if place.mode == "write" else ""))
            except Exception as error:  # every store refuses in its own way
                problem = f"{place.option} {place.uri}: {type(error).__name__}: {error}"
                unwritable.append(broken("this node", problem, "make it writable, or name another"))
        if unwritable:
            return unwritable
        driver = node_facts(marks)
        others, silent = _ask_others(marks) if all_nodes else ([], [])
        return [*silent, *compare(driver, others, expected_fingerprint)]
    finally:
        for _, mark in marks:
            if mark:
                storage.remove(mark)


def _ask_others(marks: list[tuple[Place, str]]) -> tuple[list[Facts], list[Finding]]:
    """Facts of every other node that can run work, and a finding for each that cannot answer."""
    import ray
    from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    task: Any = ray.remote(node_facts)
    asked: dict[Any, str] = {}
    for node in ray.nodes():
        works = node["Resources"].get("CPU", 0) or node["Resources"].get("GPU", 0)
        if node["Alive"] and node["NodeID"] != here and works:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            asked[task.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(marks)] = name
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_TIMEOUT_S) if asked else ([], [])
    fix = "look at that node in the dashboard, or take it out of the cluster"
    silent = [broken(f"node {asked[ref]}", f"no answer within {NODE_TIMEOUT_S:.0f} s", fix) for ref in late]
    facts = []
    for ref in done:
        try:
            facts.append(ray.get(ref))
        except (TaskUnschedulableError, NodeDiedError, WorkerCrashedError):  # Ray notices a death after some seconds
            gone = "none needed: work runs on the nodes that are there, and on those that come"
            silent.append(warning(f"node {asked[ref]}", "left the cluster while it was asked", gone))
        except Exception as error:  # a node with other packages fails in ways that nobody can list
            silent.append(broken(f"node {asked[ref]}", f"cannot run our code: {last_line(error)}", fix))
    return facts, silent


def _foreign(name: str) -> str:
    """Where `name` is imported from when that is not beside this file; empty when it is ours."""
    where = getattr(importlib.import_module(name), "__file__", None) or "nowhere"
    return "" if Path(where).resolve().parent.parent == checkout_root() else where
