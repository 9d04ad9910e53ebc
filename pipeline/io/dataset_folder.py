"""The names in the folder of a data set, and what is said of a folder that holds none. Light: it reads no image."""

from pipeline.errors import UsageError

from . import storage

DATASET_FILE = "dataset.json"
STATE_FOLDER = ".focusvit"


def no_dataset(uri: str) -> UsageError:
    """The error for a place without `dataset.json`: an interrupted preprocessing, or nothing of ours."""
    started = any(name.startswith("plan-") for name in storage.list_names(storage.join(uri, STATE_FOLDER)))
    hint = (
        "Its preprocessing was interrupted: run the same `focusvit preprocess` again, it goes on where it stopped."
        if started
        else f"Make one with `focusvit preprocess --source SRC --out {uri} --split train`."
    )
    return UsageError(f"{uri} holds no data set ({DATASET_FILE} is not there). {hint}")


def samples_to_learn(uri: str) -> int | None:
    """How many samples the split `train` has, by `dataset.json` alone; None where that cannot be told. Never raises:
    whoever opens the data set says what is wrong with it."""
    try:
        return int(storage.read_json(storage.join(uri, DATASET_FILE))["splits"]["train"]["num_samples"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
