"""litdata from a local folder of chunks. Arguments: MODE DATA FOLDER; MODE is `same` or `default`.

Its own JPEG field decodes with torchvision's compiled decoder, which a CPU-only torch lacks; `default` therefore stores
bytes and decodes them with PIL, like the other default recipes.
"""

import io
import sys
from typing import Any

from loader_parts import BATCH, SameWork, default_transform, load_torchvision, samples, serve

load_torchvision()  # litdata imports torchvision where it is installed
import numpy as np  # noqa: E402
from litdata import StreamingDataLoader, StreamingDataset, optimize  # noqa: E402
from PIL import Image  # noqa: E402

mode, data, folder = sys.argv[1:4]
place = f"{folder}/litdata-{mode}"


def of_same(row: dict) -> dict:
    arrays = {name: np.frombuffer(row[name], np.uint8) for name in ("jpg", "map", "merges")}
    return {**arrays, "cls": row["cls"]}


def of_default(row: dict) -> dict:
    return {"jpg": row["jpg"], "cls": row["cls"]}


class Same(StreamingDataset):
    work = SameWork()

    def __getitem__(self, at: Any) -> Any:
        row = super().__getitem__(at)
        return self.work(row["jpg"], row["map"], row["merges"], row["cls"])


class Default(StreamingDataset):
    augment = staticmethod(default_transform())

    def __getitem__(self, at: Any) -> Any:
        row = super().__getitem__(at)
        return self.augment(Image.open(io.BytesIO(row["jpg"])).convert("RGB")), row["cls"]


if __name__ == "__main__":
    rows = list(samples(data))
    make = of_same if mode == "same" else of_default
    optimize(fn=make, inputs=rows, output_dir=place, chunk_bytes="64MB", num_workers=1)
    found = (Same if mode == "same" else Default)(place, shuffle=True)
    serve(lambda: StreamingDataLoader(found, batch_size=BATCH, num_workers=0), lambda batch: len(batch[0]))
