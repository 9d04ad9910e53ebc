"""Where a training reports: a new run, or the one that an earlier start of the run directory made, wherever it is now.

run.json keeps the address of the store without its password, so a store that needs one is named again on every start.
"""

import os
from dataclasses import dataclass
from typing import Any

from focusvit.runs.store import check_reachable, default_tracking_uri, has_run
from pipeline.errors import UsageError
from pipeline.secrets import HIDDEN, masked

from .launch import LaunchConfig

EXPERIMENT = "focusvit"


@dataclass(frozen=True, kw_only=True)
class TrackedPlace:
    """The store and the run in it; `run_id` None: a new run. `said`: what the user should know about a change."""

    uri: str
    experiment: str
    run_id: str | None
    said: str = ""


def tracked_place(known: dict[str, Any], launch: LaunchConfig) -> TrackedPlace:
    """Where to report, from run.json and the options of this start. What cannot be followed is refused.

    Raises `UsageError`: the store does not answer, its password is missing, or the run would change its experiment.
    """
    before, run_id = known.get("tracking_uri"), known.get("run_id")
    if not before or not run_id:
        uri = default_tracking_uri(launch.tracking_uri)
        check_reachable(uri)
        return TrackedPlace(uri=uri, experiment=launch.experiment or EXPERIMENT, run_id=None)
    uri = _named_again(before, launch)
    moved = masked(uri) != before
    check_reachable(uri)
    if moved and not has_run(uri, run_id):
        said = f"tracking  {masked(uri)} has no run {run_id} of {before}: a new run there gets all points so far"
        return TrackedPlace(uri=uri, experiment=launch.experiment or known["experiment"], run_id=None, said=said)
    if launch.experiment not in (None, known.get("experiment")):
        raise UsageError(
            f"the run in {launch.run_dir} is in the experiment '{known.get('experiment')}', and MLflow cannot move it "
            f"to '{launch.experiment}'. Leave out --experiment to go on, or take another --run-dir."
        )
    said = f"tracking  the run goes on in {masked(uri)}, before in {before}" if moved else ""
    return TrackedPlace(uri=uri, experiment=known.get("experiment", EXPERIMENT), run_id=run_id, said=said)


def changes_nothing(known: dict[str, Any], launch: LaunchConfig) -> bool:
    """Whether the options of this start say nothing else about the tracked run than what it is."""
    store = launch.tracking_uri and masked(default_tracking_uri(launch.tracking_uri))
    asked = {"tracking_uri": store, "experiment": launch.experiment, "run_name": launch.run_name}
    return all(value in (None, known.get(name)) for name, value in asked.items())


def _named_again(before: str, launch: LaunchConfig) -> str:
    """The address with everything in it: the option, else the stored one, else the variable where it is the same."""
    if launch.tracking_uri:
        return default_tracking_uri(launch.tracking_uri)
    variable = os.environ.get("MLFLOW_TRACKING_URI", "")
    scheme, _, rest = variable.partition("://")
    # Only then: the user and password of another server must not go to this one.
    if before in (masked(variable), f"{scheme}://{rest.rpartition('@')[2]}".rstrip("/")):
        return default_tracking_uri(variable)
    if HIDDEN not in before:
        return before
    raise UsageError(
        f"the run in {launch.run_dir} reports to {before}, and its password is kept nowhere. Name the whole address "
        "again with --tracking-uri or MLFLOW_TRACKING_URI."
    )
