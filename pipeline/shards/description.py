"""What decides the bytes of a split, as its stored plan and its sidecars state it."""

from dataclasses import asdict, replace
from typing import Any

import pyarrow.compute as pc

from pipeline.image.image import ImageConfig
from pipeline.plan.plan import Plan
from pipeline.sources.readers import Reader
from pipeline.superpixels.segment import SuperpixelConfig

from .build import ShardSpec
from .fingerprint import byte_versions, digest
from .sample import FORMAT_VERSION


def describe(
    plan: Plan, image: ImageConfig, superpixels: SuperpixelConfig, origin: dict[str, str] | None = None
) -> dict[str, Any]:
    """Everything that decides the bytes of a split, with its two digests, and where its images were found.

    `identity` covers plan and config: the same samples with the same superpixels. `fingerprint` adds the versions
    that shape bytes: shards of one fingerprint may stand beside each other. `origin` says where the images were
    (`kind`, `uri`) and takes no part in either.
    """
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "num_samples": plan.num_samples,
        "num_shards": plan.num_shards,
        "num_classes": len(plan.classes),
        "plan": plan.digest,
        "image": image.settings(),
        "superpixels": asdict(superpixels),
    }
    identity = digest(content)
    content["versions"] = byte_versions()
    checksums = plan.table.column("sha256")
    content["checksums"] = digest(checksums.to_pylist()) if pc.max(checksums).as_py() else None
    fingerprint = digest(content)
    origin = origin or {"kind": "images", "uri": "unknown"}
    return {**content, "identity": identity, "fingerprint": fingerprint, "origin": origin}


def shard_specs(
    out: str, plan: Plan, description: dict[str, Any], source: Reader, *, skip_bad: bool = True
) -> list[ShardSpec]:
    """The work of a split, shard by shard, as its description states it."""
    first = ShardSpec(
        out=out,
        split=plan.split,
        shard=0,
        source=source,
        image=ImageConfig(**description["image"]),
        superpixels=SuperpixelConfig(**description["superpixels"]),
        fingerprint=description["fingerprint"],
        golden=description["versions"]["golden"],
        skip_bad=skip_bad,
    )
    return [replace(first, shard=shard) for shard in range(plan.num_shards)]


def is_whole(description: dict[str, Any]) -> bool:
    """Whether a stored description has the digests that it states."""
    try:
        content = {name: description[name] for name in description.keys() - {"identity", "fingerprint", "origin"}}
        logical = {name: content[name] for name in content.keys() - {"versions", "checksums"}}
        origin = description["origin"]
        digests = digest(logical), digest(content)
        return digests == (description["identity"], description["fingerprint"]) and {"kind", "uri"} <= origin.keys()
    except (KeyError, TypeError, AttributeError):
        return False


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """'superpixels.compactness (there 10.0, now 20.0)' for each field that differs."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        there, here = before.get(name), now.get(name)
        if there == here or name in ("identity", "fingerprint", "origin"):
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found += differences(there, here, f"{prefix}{name}.")
        else:
            short = [value[:12] if isinstance(value, str) else value for value in (there, here)]
            found.append(f"{prefix}{name} (there {short[0]}, now {short[1]})")
    return found
