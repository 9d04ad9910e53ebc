"""200 flipped bytes over all files of a stopped run: it ends as if nothing had been, or says which file is wrong."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from focusvit.runs.run_dir import RunDir
from focusvit.train.loop import train
from pipeline.errors import DataError, UsageError
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import Stop, final_tensors, small, values_of

CONFIG = small(epochs=1.4, eval_every_epochs=1.0, checkpoint_every_epochs=0.3)
FLIPS = 200


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_no_flipped_byte_of_a_run_is_used_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri, choose, wrong = make_dataset(tmp_path / "data"), random.Random(20), []
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(CONFIG, data_uri=uri, run_dir=str(whole))

    def die(samples: int, metrics: dict) -> None:
        if samples == 51:
            raise Stop

    with contextlib.suppress(Stop):
        train(CONFIG, data_uri=uri, run_dir=str(stopped), on_checkpoint=die)
    RunDir(str(stopped)).set_info({"run_id": "0123456789abcdef", "tracking_uri": "http://server:5000", "starts": 1})
    expected, tensors = values_of(whole), final_tensors(whole)
    files = sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file())
    assert {"config.json", "run.json", "metrics.jsonl"} < {str(path) for path in files} and len(files) == 10, files
    found = {"went on unharmed": 0, "named": 0}
    for number in range(FLIPS):
        run = shutil.copytree(stopped, tmp_path / "run")
        file = files[number % len(files)]
        data = bytearray((run / file).read_bytes())
        place, bit = choose.randrange(len(data)), 1 << choose.randrange(8)
        data[place] ^= bit
        (run / file).write_bytes(data)
        caplog.clear()
        refused = ""
        try:
            RunDir(str(run)).info()
            train(CONFIG, data_uri=uri, run_dir=str(run))
        except (DataError, UsageError) as error:
            refused = str(error)
        named = str(run / file) in caplog.text + refused
        lost = file.name == "metrics.jsonl" and named  # a point that is left out is said, and cannot be made again
        ours = values_of(run) if not refused else {}
        equal = not refused and all(ours[samples].items() <= expected[samples].items() for samples in ours)
        equal = equal and (lost or ours == expected)
        if equal:
            last = final_tensors(run)
            equal = last.keys() == tensors.keys() and all(torch.equal(last[key], tensors[key]) for key in last)
        found["named" if named else "went on unharmed"] += 1
        if not (equal or (refused and named)):
            wrong.append((str(file), place, bit, refused))
        shutil.rmtree(run)
    print(json.dumps({**found, "silent wrong results": len(wrong)}))
    assert not wrong
    # The rest hit the checkpoint before the latest, which is not read, or blanks between the words of JSON.
    assert found["named"] > 0.5 * FLIPS
