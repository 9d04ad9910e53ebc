"""The bench of starts: its columns are the scores that the run itself wrote, and finished rows are not made again."""

import json
from pathlib import Path

import pytest

from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from tests.benchmarks import report
from tests.benchmarks.train import starts


def test_a_table_of_a_start_and_the_same_network_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    data = make_dataset(tmp_path / "data", splits={"train": 48, "val": 24})
    words = ["--checkpoint", make_checkpoint(tmp_path / "start"), "--data", data, "--epochs", "1", "--batch", "24"]
    words += ["--rows", str(tmp_path / "rows"), "--changed-checkout"]
    assert starts.main(words) == 0
    made = json.loads((tmp_path / "results" / "starts.json").read_text())
    (table,) = made["tables"]
    (start, fresh), columns = table["rows"], table["columns"]
    assert start[0] == "start" and fresh[0] == "the first, without training"
    begins, last, best = (float(start[columns.index(name)].split("%")[0]) for name in columns[3:6])
    assert begins > 0 and best == max(begins, last), "two scorings: of the begin, and of the only epoch"
    assert fresh[3] == "chance" and fresh[4] == fresh[5]

    monkeypatch.setattr(starts, "train", None)  # whoever trains now fails
    assert starts.main(words) == 0
    assert json.loads((tmp_path / "results" / "starts.json").read_text())["tables"] == made["tables"]
    with pytest.raises(TypeError):
        starts.main([*words, "--precision", "bf16"])
