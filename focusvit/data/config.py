"""What the model sees of a sample: sizes, crops, colours, mixing; and how fast it gets there."""

from dataclasses import dataclass, field
from typing import Literal, get_args

Colour = Literal["none", "3-augment", "randaugment"]
COLOURS = get_args(Colour)


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How often and how two samples are mixed. Alphas are the parameters of Beta(alpha, alpha); 0 = never."""

    mixup: float = 0.0
    """blend pixels; 0.8 in DeiT"""
    cutmix: float = 0.0
    """paste pixels; 1.0 in DeiT"""
    cutmix_shape: Literal["box", "superpixels"] = "box"
    """what is pasted: a box, or whole superpixels of the other image"""
    probability: float = 1.0
    """share of the samples that are mixed at all; with both kinds on, each is taken half of the time"""

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0 or not 0 <= self.probability <= 1:
            raise ValueError("data.mix: mixup and cutmix must not be negative, probability must be in [0, 1]")
        if self.cutmix_shape not in ("box", "superpixels"):
            raise ValueError(f"data.mix.cutmix_shape must be box or superpixels, not '{self.cutmix_shape}'")

    @property
    def on(self) -> bool:
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the model sees of a sample, and how it gets there."""

    image_px: int = 224
    """side of the square image given to the model"""
    map_px: int = 0
    """side of the superpixel map given to the model; 0 = image_px. Half of image_px is enough for most models"""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """share of the image area that a random resized crop takes; (1, 1) = the whole image"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """aspect ratio of the crop"""
    flip: float = 0.5
    """probability of mirroring left and right"""
    colour: Colour = "none"
    """3-augment: grey, solarize or blur (DeiT III). randaugment: 2 of 13 operations, geometry included"""
    colour_jitter: float = 0.0
    """strength of random brightness, contrast and saturation; 0.3 is usual"""
    erase: float = 0.0
    """probability of filling a random box with noise"""
    views: int = 0
    """random views (crop, flip, colour) of each sample, taken in turn, one an epoch; 0 = a new one in every epoch"""
    mix: MixConfig = field(default_factory=MixConfig)
    """mixup and CutMix; partners are neighbours in the global batch"""
    eval_crop_fraction: float = 0.875
    """side of the centre crop at evaluation, as a share of the short side"""
    train_split: str = "train"
    """the split to learn from"""
    eval_split: str = "val"
    """the split to score"""
    loader_workers: int = 0
    """processes that decode for each rank; 0 = in the training process"""
    prefetch: int = 4
    """batches each loader worker prepares ahead"""
    cache_dir: str | None = None
    """folder on the local disk for shards of an object store or of mounted storage (NFS, Lustre), fetched ahead; None =
    each sample by its own range"""
    cache_limit_gb: float = 50.0
    """the cache deletes the shards used longest ago beyond this size"""
    check_shards: Literal["local", "all", "none"] = "local"
    """hash a shard before its first sample is learned from, once in each training process (1 s of CPU for a GB); local:
    shards on a disk; all: those of a store too, each fetched whole once more; none: left to `focusvit verify`"""
    max_bad_share: float = 0.01
    """training stops when more than this share of the samples seen did not decode"""

    def __post_init__(self) -> None:
        if self.image_px < 8:
            raise ValueError(f"data.image_px must be at least 8, not {self.image_px}")
        if self.map_px < 0:
            raise ValueError(f"data.map_px must not be negative, not {self.map_px}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"data.crop_scale must satisfy 0 < low <= high <= 1, not {self.crop_scale}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"data.crop_ratio must satisfy 0 < low <= high, not {self.crop_ratio}")
        if self.colour not in COLOURS:
            raise ValueError(f"data.colour must be one of {', '.join(COLOURS)}, not '{self.colour}'")
        if self.check_shards not in ("local", "all", "none"):
            raise ValueError(f"data.check_shards must be local, all or none, not '{self.check_shards}'")
        if self.views < 0:
            raise ValueError(f"data.views must not be negative, not {self.views}")
        for name in ("flip", "erase", "max_bad_share", "colour_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 < self.eval_crop_fraction <= 1:
            raise ValueError(f"data.eval_crop_fraction must be in (0, 1], not {self.eval_crop_fraction}")
        if self.loader_workers < 0 or self.prefetch < 1:
            raise ValueError("data.loader_workers must not be negative and data.prefetch must be at least 1")

    @property
    def map_side(self) -> int:
        return self.map_px or self.image_px

    @property
    def most_tokens(self) -> int:
        """A region has a pixel of the map at least, and its id is an int16."""
        return min(self.map_side**2, 32767)
