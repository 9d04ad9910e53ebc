"""Data sets of the Hugging Face hub by name, through the `datasets` library: `hub:OWNER/NAME[@CONFIG]`."""

import re

from pipeline.errors import DataError, UsageError, first_line
from pipeline.io import storage

from .parquet import HuggingFaceParquet, open_parquet
from .source import Choices
from .splits import chosen_split

PREFIX = "hub:"


def open_hub(uri: str, split: str, choices: Choices) -> HuggingFaceParquet:
    """Download (once, into the library's cache) and read as parquet. A local folder in place of a name works offline.

    Raises UsageError for an unknown name or split, DataError when the download fails.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError(f"{uri} needs the `datasets` library: pip install 'focusvit[hub]'.") from None
    name, _, config = uri.removeprefix(PREFIX).partition("@")
    try:
        builder = datasets.load_dataset_builder(name, config or None)
        folder = storage.join(builder.cache_dir, "parquet")
        if not storage.exists(storage.join(folder, "dataset_info.json")):  # written last
            builder.download_and_prepare(folder, file_format="parquet")
    except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ValueError) as error:
        raise UsageError(f"cannot open {uri}: {first_line(error)}.") from None
    except Exception as error:  # the network, the hub's server, a broken archive: each with kinds of its own
        raise DataError(f"cannot download {uri}: {first_line(error)}. Try again; what is complete is kept.") from None
    files = [name for name in storage.list_names(folder) if name.endswith(".parquet")]
    splits: dict[str, list[str]] = {}
    for file in files:
        match = re.search(r"-([A-Za-z_]+)(-\d+-of-\d+)?\.parquet$", file)
        splits.setdefault(match[1] if match else "", []).append(file)
    return open_parquet(folder, splits[chosen_split(uri, splits, split)], choices=choices)
