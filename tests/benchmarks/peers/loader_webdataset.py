"""Plain webdataset over FocusViT's own shards. Arguments: MODE DATA FOLDER; MODE is `same`, `recipe` or `default`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from loader_parts import BATCH, RecipeWork, SameWork, default_transform, serve

mode, data = sys.argv[1:3]
shards = sorted(map(str, Path(data).glob("train-*.tar")))
# As in webdataset's README: shards shuffled, a buffer of 1000 samples, batches made by the pipeline.
source = wds.WebDataset(shards, shardshuffle=100).shuffle(1000)
if mode == "same":
    work = SameWork()

    def done(sample: dict[str, Any]) -> tuple[Any, ...]:
        return work(sample["jpg"], sample["spx.png"], sample["merges.npy"][128:], sample["cls"])

    batches = source.map(done).batched(BATCH)
elif mode == "recipe":
    recipe = RecipeWork()

    def drawn(sample: dict[str, Any]) -> tuple[Any, ...]:
        return recipe.sample(sample["jpg"], sample["spx.png"], sample["merges.npy"][128:], sample["cls"])

    batches = source.map(drawn).batched(BATCH, collation_fn=recipe.batch)
else:
    pipeline = source.decode("pil").to_tuple("jpg", "cls").map_tuple(default_transform(), lambda class_id: class_id)
    batches = pipeline.batched(BATCH)
loader = wds.WebLoader(batches, batch_size=None, num_workers=0)


def one_pass() -> Iterator[Any]:
    yield from loader


serve(one_pass, lambda batch: len(batch[0]))
