"""One split, whatever its publisher calls it; and a class is never taken for a split."""

import pytest

from pipeline.errors import UsageError
from pipeline.sources.splits import meaning, wanted_split


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["train", "val"], "val", "val"),
        (["Training", "Testing"], "test", "Testing"),
        (["TRAIN", "VALID"], "val", "VALID"),
        (["train", "dev"], "val", "dev"),
        (["train", "val"], "validation", "val"),
        (["train", "dev", "validation"], "val", "validation"),  # the order of the aliases
        (["train", "dev", "validation"], "dev", "dev"),  # the very name
        (["train2017", "val2017"], "train", "train2017"),
        (["training_set", "test_set"], "train", "training_set"),
        (["trainval", "test"], "train", "trainval"),
        (["trainval", "train", "val"], "train", "train"),
        (["train2014", "train"], "train", "train"),
        (["train2014", "train2017"], "train2017", "train2017"),
        (["train", "extra"], "extra", "extra"),
        (["train", "extra"], "val", None),
        (["cat", "bullet_train", "trainer", "devil"], "train", None),
        ([], "train", None),
    ],
)
def test_the_name_that_is_the_split(names: list[str], asked: str, found: str | None) -> None:
    assert wanted_split(names, asked) == wanted_split(names[::-1], asked) == found


def test_two_names_equally_near_are_refused() -> None:
    with pytest.raises(UsageError, match="2 splits that could be 'train': train2014, train2017"):
        wanted_split(["train2014", "train2017", "val2017"], "train")


@pytest.mark.parametrize(
    "name", ["cat", "train_station", "bullet train", "valley", "tester", "value", "", "trainannot"]
)
def test_other_names_mean_no_split(name: str) -> None:
    assert meaning(name) is None
