"""A data set through the `datasets` library. A local folder stands for the hub, so nothing is downloaded."""

from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from pipeline.sources import detect
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


@pytest.mark.soak
def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = class_images(per_class=4)
    write_folder(tmp_path / "set" / "train", images)
    write_folder(tmp_path / "set" / "test", class_images(per_class=1, start=70))
    uri = f"hub:{tmp_path / 'set'}"
    source = detect(uri, "train")
    assert source.classes == tuple(images)
    read = source.reader().read
    found = {read(row.file, row.offset, row.length): row.class_name for row in source.images()}
    assert found == {data: name for name, files in images.items() for data in files.values()}
    assert preprocessed(uri, tmp_path / "out", "test").num_samples == 3
    with pytest.raises(UsageError, match="no split 'val'; it holds test, train"):
        detect(uri, "val")
    with pytest.raises(DataError, match="cannot download hub:nobody/nothing"):
        detect("hub:nobody/nothing", "train")
