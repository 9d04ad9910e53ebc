"""MosaicML streaming from a local MDS folder. Arguments: MODE DATA FOLDER; MODE is `same` or `default`."""

import json
import sys
from pathlib import Path
from typing import Any

from loader_parts import BATCH, SameWork, default_transform, load_torchvision, samples, serve

load_torchvision()  # streaming imports torchvision
from streaming import MDSWriter, StreamingDataset  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

mode, data, folder = sys.argv[1:4]
place = f"{folder}/streaming-{mode}"
columns = {"jpg": "bytes", "map": "bytes", "merges": "bytes", "cls": "int"}
if mode != "same":
    columns = {"jpg": "bytes", "cls": "int"}
with MDSWriter(out=place, columns=columns) as out:
    for row in samples(data):
        out.write({name: row[name] for name in columns})


class Same(StreamingDataset):
    work = SameWork()

    def __getitem__(self, at: Any) -> Any:
        row = super().__getitem__(at)
        return self.work(row["jpg"], row["map"], row["merges"], row["cls"])


class Default(StreamingDataset):
    transform = staticmethod(default_transform())

    def __getitem__(self, at: Any) -> Any:
        row = super().__getitem__(at)
        return self.transform(row["jpg"].convert("RGB")), row["cls"]


if mode != "same":  # called a picture, the column reads back as a PIL image; its bytes are the same
    index = Path(place, "index.json")
    content = json.loads(index.read_text())
    for shard in content["shards"]:
        shard["column_encodings"] = [kind.replace("bytes", "jpeg") for kind in shard["column_encodings"]]
    index.write_text(json.dumps(content))
found = (Same if mode == "same" else Default)(local=place, shuffle=True, batch_size=BATCH)
serve(lambda: DataLoader(found, batch_size=BATCH), lambda batch: len(batch[0]))
