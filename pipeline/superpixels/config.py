"""How superpixels are made."""

from dataclasses import dataclass

MIN_PIXELS_PER_REGION = 16  # with fewer pixels than regions fast-slic divides by zero, which ends the process


@dataclass(frozen=True, kw_only=True)
class SuperpixelConfig:
    """Everything that changes the superpixels of an image. Part of the fingerprint of a data set."""

    fine_regions: int = 256
    """Most regions of a stored map; every token budget is cut from them. At most 256, so that ids fit a byte."""
    pixels_per_region: int = 85
    """Pixels of the segmentation per fine region: images are reduced or enlarged, by a whole factor, to about
    fine_regions * pixels_per_region pixels. With 256 regions a photo of 256 x 384 is segmented at 128 x 192."""
    seed_regions: int = 400
    """Regions asked of SLIC, which returns fewer; the cheapest merges bring them down to fine_regions."""
    compactness: float = 10.0
    """SLIC's weight of position against colour; larger gives rounder regions."""
    iterations: int = 10
    """Rounds of SLIC."""
    spatial_weight: float = 4.0
    """Weight of position in the merge order: a distance of one region counts as this many CIE units of colour."""

    def __post_init__(self) -> None:
        if not 1 <= self.fine_regions <= 256:
            raise ValueError(f"fine_regions is {self.fine_regions}; choose 1 to 256 (ids are stored as bytes)")
        if not MIN_PIXELS_PER_REGION <= self.pixels_per_region <= 4096:
            raise ValueError(f"pixels_per_region is {self.pixels_per_region}; choose {MIN_PIXELS_PER_REGION} to 4096")
        if not self.fine_regions <= self.seed_regions <= 4096:
            raise ValueError(f"seed_regions is {self.seed_regions}; choose {self.fine_regions} (fine_regions) to 4096")
        if not 0 < self.compactness <= 1000:
            raise ValueError(f"compactness is {self.compactness}; choose more than 0 and at most 1000")
        if not 1 <= self.iterations <= 100:
            raise ValueError(f"iterations is {self.iterations}; choose 1 to 100")
        if not 0 <= self.spatial_weight <= 10000:
            raise ValueError(f"spatial_weight is {self.spatial_weight}; choose 0 to 10000")
