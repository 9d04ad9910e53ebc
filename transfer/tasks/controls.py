"""The controls of a patched host: the same task for the same host, its tokens spent in other ways."""

import dataclasses

from focusvit.drop_in.host_config import HostConfig
from focusvit.drop_in.settings import controls_of
from focusvit.runs.checkpoint_record import Checkpoint
from focusvit.runs.model_record import model_config

from .spec import WorkSpec


def controls(spec: WorkSpec, record: Checkpoint) -> list[WorkSpec]:
    """A spec for each control of the host in `record`; none for another model."""
    host = model_config(record)
    if not isinstance(host, HostConfig):
        return []
    if spec.tokens:
        host = dataclasses.replace(host, tokens=spec.tokens)
    return [
        dataclasses.replace(spec, patch=patch, control=name, tokens=None, baselines=False)
        for name, patch in controls_of(host).items()
    ]
