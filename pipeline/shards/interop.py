"""Index files for other readers of the shards: wids, timm and DALI. All of them follow from the shards themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.io import storage, tar

from .dataset import SplitInfo, shard_name

TIMM_FILE = "_info.json"


def wids_name(split: str) -> str:
    return f"wids-{split}.json"


def wids_index(split: str, sidecars: Sequence[dict[str, Any]]) -> bytes:
    """The shard list of the wids library; its URLs are relative to the file, so it lies beside the shards."""
    shards = [
        {
            "url": shard_name(split, sidecar["shard"]),
            "nsamples": sidecar["num_samples"],
            "filesize": sidecar["size_bytes"],
        }
        for sidecar in sidecars
    ]
    return storage.json_bytes(
        {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": split, "shardlist": shards}
    )


def timm_info(splits: Mapping[str, tuple[SplitInfo, Sequence[int]]]) -> bytes:
    """What timm's WebDataset reader (`--dataset wds/NAME`) looks for: by split, the samples of each shard."""
    found = {
        name: {
            "name": name,
            "num_samples": info.num_samples,
            "filenames": [shard_name(name, shard) for shard in range(info.num_shards)],
            "shard_lengths": [int(size) for size in sizes],
        }
        for name, (info, sizes) in sorted(splits.items())
    }
    return storage.json_bytes({"splits": found})


def dali_name(split: str, shard: int) -> str:
    """Relative to the data set: for `index_paths` of DALI's `fn.readers.webdataset`."""
    return f".focusvit/dali/{split}-{shard:06d}.idx"


def dali_index(data: bytes) -> bytes:
    """As DALI's wds2idx writes it: for each sample a line of `extension offset size name` for each member."""
    lines = [
        " ".join(f"{extension} {at.offset} {at.size} {at.name}" for extension, at in found.items())
        for _, _, found in tar.samples(tar.in_memory(data), len(data), "a shard")
    ]
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()
