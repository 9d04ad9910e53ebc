"""Hugging Face datasets, map-style on Arrow. Arguments: MODE DATA FOLDER; MODE is `same`, `recipe` or `default`."""

import sys

import datasets
from loader_parts import BATCH, RecipeWork, SameWork, default_transform, samples, serve
from torch.utils.data import DataLoader

mode, data, folder = sys.argv[1:4]
datasets.disable_progress_bars()
rows = list(samples(data))
if mode != "default":
    work, recipe = SameWork(), RecipeWork()
    features = datasets.Features(
        {name: datasets.Value("binary") for name in ("jpg", "map", "merges")} | {"cls": datasets.Value("int64")}
    )
    table = datasets.Dataset.from_list(rows, features=features)

    def changed(batch: dict[str, list]) -> dict[str, list]:
        rows = zip(batch["jpg"], batch["map"], batch["merges"], batch["cls"])
        if mode == "recipe":
            return {"cls": [recipe.sample(*row) for row in rows]}
        parts = [work(*row) for row in rows]
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


def mixed(rows: list[dict]) -> dict:
    images, maps, *rest = recipe.batch([row["cls"] for row in rows])
    return {"image": images, "map": maps, "cls": rest[0], "mix": rest[1:]}


collate = mixed if mode == "recipe" else None
serve(
    lambda: DataLoader(table, batch_size=BATCH, shuffle=True, collate_fn=collate),  # type: ignore[arg-type]
    lambda batch: len(batch["cls"]),
)
