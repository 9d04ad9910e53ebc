"""The teacher of a training, as its config asks for it."""

import math
from typing import TYPE_CHECKING

import torch

from focusvit.data.draws import draws_facts
from focusvit.distill.cache import FeatureCache
from focusvit.distill.features import FeatureTargets, cache_name
from focusvit.distill.teacher import FeatureTeacher
from focusvit.precision import settled
from focusvit.runs.run_dir import RunDir
from pipeline.errors import UsageError
from pipeline.io import storage

from .config import TrainConfig

if TYPE_CHECKING:
    from pipeline.shards.dataset import Split


def feature_targets(config: TrainConfig, split: "Split", run: RunDir, device: torch.device) -> FeatureTargets:
    """The targets of a label-free training, with a cache where views repeat. Raises `UsageError`: see `FeatureTeacher`
    and `FeatureCache`; for repeated views also when the run lies in a store and no cache on a disk is named."""
    assert config.distill.teacher is not None
    teacher = FeatureTeacher(config.distill.teacher, config.data.image_px, device)
    data, with_regions, cache = config.data, config.distill.regions > 0, None
    if with_regions and data.map_side % teacher.grid[0] and config.model.needs_maps:
        raise UsageError(
            f"maps of {data.map_side} px cannot be laid over the teacher's {teacher.grid[0]} x {teacher.grid[0]} "
            f"patches. Set --data.map-px to a multiple of {math.lcm(teacher.grid[0], *config.model.grid)}."
        )
    bf16 = settled(config.precision, device) == "bf16"
    if data.views:
        folder = config.distill.cache_dir or run.path("teacher-features")
        if not storage.is_local(folder):
            raise UsageError(
                f"the teacher's features of repeated views are kept on a disk, and {folder} is in a store. Name a "
                "folder with --distill.cache-dir, or set --data.views 0."
            )
        crops = (data.crop_scale, data.crop_ratio, data.flip, data.colour, data.colour_jitter, data.erase, data.views)
        drawn = tuple(draws_facts(data).values())  # colours of another release are other views
        of_data = (split.identity, split.info.root_hash, data.image_px, crops, *drawn, config.seed)
        name = cache_name(teacher.sha256, of_data, bf16, device.type)
        shape = (2 + math.prod(teacher.grid), teacher.width)
        cache = FeatureCache(folder, name, split.num_samples * data.views, shape)
    return FeatureTargets(teacher, config.model.grid, regions=with_regions, bf16=bf16, cache=cache, views=data.views)
