"""How images are stored."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Everything that changes the stored bytes of an image. Part of the fingerprint of a data set."""

    target_px: int = 256
    """Images with a longer short side are reduced to it; others keep their original bytes."""
    quality: int = 92
    """JPEG quality of reduced images."""
    depth: int | None = None
    """Bits that the values in 16-bit files have: 12 for most X-rays, 16 to take all files as they are. By default a
    16-bit file that would come out nearly black is bad."""

    def __post_init__(self) -> None:
        if not 8 <= self.target_px <= 8192:
            raise ValueError(f"image.target_px is {self.target_px}; choose 8 to 8192 pixels for the short side")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"image.quality is {self.quality}; choose 1 to 100")
        if self.depth is not None and not 9 <= self.depth <= 16:
            raise ValueError(f"image.depth is {self.depth}; choose 9 to 16 bits (files of 8 bits need no setting)")

    def settings(self) -> dict[str, int]:
        """What a data set states. A `depth` that nobody set is left out, so that older data sets stay the same."""
        return {name: value for name, value in asdict(self).items() if value is not None}
