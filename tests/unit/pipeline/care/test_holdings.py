"""`focusvit info` on a data set tells what its shards hold, by counts made from the samples themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from focusvit.cli import main
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


def test_info_tells_sizes_classes_regions_and_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_folder(tmp_path / "images", class_images(per_class=4))
    (images / "n00000002" / "n00000002_0.JPEG").write_bytes(b"no image")
    out = tmp_path / "out"
    preprocessed(images, out, samples_per_shard=5, on_error="skip")
    capsys.readouterr()
    assert main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    split = open_dataset(str(out)).split("train")
    regions = [len(split.read(number).superpixels.merges) + 1 for number in range(split.num_samples)]
    found = facts["splits"]["train"]
    assert (found["num_samples"], found["num_skipped"], found["per_class"]) == (11, 1, "3 to 4 samples")
    assert found["num_bytes"] == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert found["regions"] == {
        "min": min(regions), "median": np.median(regions), "mean": round(np.mean(regions), 2), "max": max(regions)
    }  # fmt: skip
    timings = [json.loads(path.read_text())["timing"] for path in (out / ".focusvit" / "shards").glob("*.json")]
    assert found["made"]["cpu_ms_per_image"] == pytest.approx(sum(t["cpu_s"] for t in timings) / 11 * 1e3, abs=0.01)
    assert found["made"]["machines"] == 1
    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert "regions of a map: " in told and "made by 1 machine: " in told and "11 samples in 3 shards" in told
    (out / ".focusvit" / "shards" / "train-000001.json").unlink()
    assert main(["info", str(out)]) == 0
    assert "regions of a map" not in capsys.readouterr().out, "not known is not told"
