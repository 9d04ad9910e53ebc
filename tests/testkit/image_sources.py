"""Small sources in every layout that preprocessing reads, made of the same few generated images."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def photo(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth random colour image, uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(seed: int, height: int = 40, width: int = 56) -> bytes:
    return cv2.imencode(".jpg", photo(seed, height, width)[..., ::-1])[1].tobytes()


def png(seed: int, height: int = 40, width: int = 56) -> bytes:
    return cv2.imencode(".png", photo(seed, height, width)[..., ::-1])[1].tobytes()


def class_images(classes: int = 3, per_class: int = 8, start: int = 0) -> dict[str, dict[str, bytes]]:
    """JPEG files by class (`n00000001`, ...) and name."""
    return {
        f"n{c + 1:08d}": {f"n{c + 1:08d}_{i}.JPEG": jpeg(start + 1000 * c + i) for i in range(per_class)}
        for c in range(classes)
    }


def write_folder(root: Path, images: dict[str, dict[str, bytes]]) -> Path:
    for class_name, files in images.items():
        (root / class_name).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (root / class_name / name).write_bytes(data)
    return root


def tar_bytes(files: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def linked_tar(
    files: Iterable[tuple[str, bytes]], links: Iterable[tuple[str, str, str]], format: int = tarfile.GNU_FORMAT
) -> bytes:
    """An archive of files (name, content), then links (name, what they name, "hard" or "soft")."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE if kind == "hard" else tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def write_tar_of_tars(path: Path, images: dict[str, dict[str, bytes]]) -> Path:
    """As ILSVRC2012_img_train.tar: one tar for each class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes({f"{name}.tar": tar_bytes(files) for name, files in images.items()}))
    return path


def annotated_val(images: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """Tiny ImageNet's val: `images/val_<i>.JPEG` and `val_annotations.txt`."""
    files, lines = {}, []
    for number, (class_name, data) in enumerate((c, d) for c, group in images.items() for d in group.values()):
        files[f"images/val_{number}.JPEG"] = data
        lines.append(f"val_{number}.JPEG\t{class_name}\t0\t0\t62\t62")
    return {"val_annotations.txt": "\n".join(lines).encode(), **files}


def write_parquet(path: Path, images: dict[str, dict[str, bytes]], rows_per_group: int = 5) -> Path:
    """As the Hugging Face hub stores an image classification set."""
    names = list(images)
    rows = [(data, name, names.index(c)) for c, group in images.items() for name, data in group.items()]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    import json

    table = pa.table(
        {
            "image": pa.array([{"bytes": data, "path": name} for data, name, _ in rows]),
            "label": pa.array([label for _, _, label in rows], pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path
