"""Hugging Face datasets, map-style on Arrow. Arguments: MODE DATA FOLDER; MODE is `same` or `default`."""

import sys

import datasets
from loader_parts import BATCH, SameWork, default_transform, samples, serve
from torch.utils.data import DataLoader

mode, data, folder = sys.argv[1:4]
datasets.disable_progress_bars()
rows = list(samples(data))
if mode == "same":
    work = SameWork()
    features = datasets.Features(
        {name: datasets.Value("binary") for name in ("jpg", "map", "merges")} | {"cls": datasets.Value("int64")}
    )
    table = datasets.Dataset.from_list(rows, features=features)

    def changed(batch: dict[str, list]) -> dict[str, list]:
        parts = [work(*row) for row in zip(batch["jpg"], batch["map"], batch["merges"], batch["cls"])]
        return {"image": [p[0] for p in parts], "map": [p[1] for p in parts], "cls": [p[2] for p in parts]}
else:
    features = datasets.Features({"image": datasets.Image(), "cls": datasets.Value("int64")})
    table = datasets.Dataset.from_list(
        [{"image": {"bytes": row["jpg"], "path": None}, "cls": row["cls"]} for row in rows], features=features
    )
    transform = default_transform()

    def changed(batch: dict[str, list]) -> dict[str, list]:
        return {"image": [transform(image.convert("RGB")) for image in batch["image"]], "cls": batch["cls"]}


del rows
table.save_to_disk(f"{folder}/datasets-{mode}")
table = datasets.load_from_disk(f"{folder}/datasets-{mode}").with_transform(changed)  # memory-mapped, as users have it
serve(lambda: DataLoader(table, batch_size=BATCH, shuffle=True), lambda batch: len(batch["cls"]))  # type: ignore[arg-type]
