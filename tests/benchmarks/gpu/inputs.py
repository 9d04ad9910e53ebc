"""`bench gpu-inputs`: shards of the study as arrays that a machine without them can train on, one file a set."""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.commandline import parse
from pipeline.image.image import decode_stored
from pipeline.shards.dataset import open_dataset
from tests.benchmarks.study.matrix import SETS, core_rows
from tests.benchmarks.study.study import arrays

LIMIT_BYTES = 48 * 2**20  # 64 MiB travel, with this checkout


@dataclass(frozen=True, kw_only=True)
class InputsConfig:
    """Images as the files that they are stored in, maps at every number of superpixels that the study's rows use, and
    classes."""

    data: str
    """folder that holds the shards of the sets, as DATA/cifar10"""
    out: str
    """folder for NAME.npz"""
    sets: tuple[str, ...] = ("cifar10",)
    train: int = 50_000
    """samples to learn from, at most, in the order of the shards (which is a keyed shuffle)"""
    test: int = 10_000


def carried(stored: bytes, image: np.ndarray) -> bytes:
    """The stored file of an image (uint8 (3, H, W) as the models see it), or a JPEG where that has other pixels."""
    rgb = image.transpose(1, 2, 0)
    if np.array_equal(decode_stored(stored), rgb):
        return stored
    done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, 95))
    assert done
    return data.tobytes()


def main(argv: list[str]) -> int:
    """Exit code 1 when the files are larger together than what travels."""
    config = parse(InputsConfig, argv, prog="python -m tests.benchmarks gpu-inputs")
    total = 0
    for name in config.sets:
        of = SETS[name]
        uri = f"{config.data}/{of.folder}"
        models = core_rows(of).values()
        budgets = sorted({model.tokens for model in models if model.needs_maps and model.tokens})
        held: dict[str, np.ndarray] = {"classes": np.array(open_dataset(uri).classes)}
        for split, source, most in (("train", "train", config.train), ("test", of.test_split, config.test)):
            for tokens in budgets:
                found = arrays(uri, source, of.image_px, of.map_px, tokens)
                assert found.maps is not None
                held[f"{split}_maps_{tokens}"] = found.maps[:most].numpy().astype(np.uint8)
            stored = open_dataset(uri).split(source)
            files = [carried(stored.read(at).image, image) for at, image in enumerate(found.images[:most].numpy())]
            held[f"{split}_files"] = np.frombuffer(b"".join(files), np.uint8)
            held[f"{split}_ends"] = np.cumsum([len(file) for file in files])
            held[f"{split}_ids"] = found.class_ids[:most].numpy().astype(np.int16)
        Path(config.out).mkdir(parents=True, exist_ok=True)
        file = Path(config.out, f"{name}.npz")
        np.savez_compressed(file, **held)
        total += file.stat().st_size
        sys.stdout.write(f"gpu-inputs: {file}, {file.stat().st_size / 2**20:.1f} MiB\n")
    if total > LIMIT_BYTES:
        most = LIMIT_BYTES / 2**20
        sys.stderr.write(f"gpu-inputs: {total / 2**20:.0f} MiB together, and {most:.0f} travel: use fewer --train\n")
    return int(total > LIMIT_BYTES)
