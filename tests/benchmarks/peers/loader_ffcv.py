"""FFCV from one .beton file. Arguments: MODE DATA FOLDER; MODE is `same` or `default`.

`same`: raw bytes through FFCV's loader, then the same decoder, crop and fit as everyone. `default`: its own compiled
decoder and crop, as in its ImageNet example; image only.
"""

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ffcv.fields import BytesField, IntField, RGBImageField
from ffcv.fields.decoders import BytesDecoder, IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from loader_parts import BATCH, IMAGE_PX, MEAN, STD, SameWork, samples, serve
from PIL import Image

mode, data, folder = sys.argv[1:4]
place = f"{folder}/ffcv-{mode}.beton"


class Rows:
    """A map-style data set of what FFCV writes."""

    def __init__(self) -> None:
        self._rows = list(samples(data))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> tuple[Any, ...]:
        row = self._rows[at]
        if mode == "same":
            lengths = np.array([len(row["jpg"]), len(row["map"]), len(row["merges"])], np.int64).tobytes()
            blob = lengths + row["jpg"] + row["map"] + row["merges"]
            return np.frombuffer(blob, np.uint8), row["cls"]
        return Image.open(io.BytesIO(row["jpg"])).convert("RGB"), row["cls"]


first = BytesField() if mode == "same" else RGBImageField(write_mode="jpg", jpeg_quality=92)
DatasetWriter(place, {"sample": first, "cls": IntField()}, num_workers=1).from_indexed_dataset(Rows())
if mode == "same":
    pipelines = {"sample": [BytesDecoder()], "cls": [IntDecoder(), ToTensor()]}
else:
    crop = RandomResizedCropRGBImageDecoder((IMAGE_PX, IMAGE_PX))
    mean, std = np.array(MEAN) * 255, np.array(STD) * 255
    pipelines = {
        "sample": [crop, RandomHorizontalFlip(), NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()],
        "cls": [IntDecoder(), ToTensor()],
    }
loader = Loader(place, batch_size=BATCH, num_workers=1, order=OrderOption.RANDOM, drop_last=False, pipelines=pipelines)
work = SameWork()


def one_pass() -> Iterator[Any]:
    for batch in loader:
        if mode != "same":
            yield batch
            continue
        images, maps = [], []
        for blob, class_id in zip(np.asarray(batch[0]), batch[1].tolist()):
            jpg, regions, merges = np.frombuffer(blob[:24].tobytes(), np.int64).tolist()
            a, b, c = 24 + jpg, 24 + jpg + regions, 24 + jpg + regions + merges
            image, regions_of, _ = work(blob[24:a], blob[a:b], blob[b:c], class_id[0])
            images.append(image)
            maps.append(regions_of)
        yield torch.stack(images), torch.stack(maps), batch[1]


serve(one_pass, lambda batch: len(batch[0]))
