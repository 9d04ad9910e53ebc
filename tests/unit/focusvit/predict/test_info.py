"""`focusvit info` tells what a folder is, and what a folder is not."""

import json

import pytest

from focusvit.predict.info import main
from pipeline.errors import UsageError
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset


def test_data_set(tmp_path, capsys):
    data = make_dataset(tmp_path / "data")
    assert main([data]) == 0
    shown = capsys.readouterr().out
    assert (
        "4 (disc, square, triangle, star)" in shown and "split val: 17 samples" in shown and "4 to 5 samples" in shown
    )
    main([data, "--json"])
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["num_samples"] == 50


def test_checkpoint(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    assert main([checkpoint]) == 0
    shown = capsys.readouterr().out
    assert "9 tokens of superpixel" in shown and "1,000 samples" in shown and "val/top1 0.5" in shown
    main([checkpoint, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "checkpoint" and facts["num_parameters"] > 1000


def test_other_places_are_named(tmp_path):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UsageError, match="neither a data set"):
        main([str(tmp_path)])
    with pytest.raises(UsageError, match="does not exist or is empty"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="is a file"):
        main([str(tmp_path / "file.txt")])
