"""Damage to files as disks and networks make it."""

from pathlib import Path


def flip(place: Path, where: float, bits: int = 0x01) -> None:
    """Change one byte of a file; `where` in 0..1 is its place."""
    data = bytearray(place.read_bytes())
    data[int(where * (len(data) - 1))] ^= bits
    place.write_bytes(data)
