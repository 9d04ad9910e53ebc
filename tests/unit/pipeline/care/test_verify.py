"""Whatever is damaged is found and named, and repair gives back the same bytes."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from focusvit.cli import main
from pipeline.plan.plan import load_plan, save_plan
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import annotated_val, class_images, tar_bytes, write_folder, write_tar_of_tars
from testkit.preprocessed import preprocessed

IMAGES = class_images(classes=2, per_class=6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`images/` with one bad file, and `out/` with a train split that skipped it and a val split."""
    root = tmp_path_factory.mktemp("made")
    write_folder(root / "images", IMAGES)
    (root / "images" / "n00000001" / "bad.jpg").write_bytes(b"no image")
    (root / "val.tar").write_bytes(tar_bytes(annotated_val(class_images(classes=2, per_class=2, start=50))))
    for source, split in (("images", "train"), ("val.tar", "val")):
        preprocessed(root / source, root / "out", split, samples_per_shard=5, on_error="skip")
    return root


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def _verify(capsys: pytest.CaptureFixture[str], out: Path, *options: str) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["verify", str(out), "--workers", "0", "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def _bytes(root: Path) -> dict[str, bytes]:
    """All that must come back; timings in sidecars are of the moment."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(root)), path.read_bytes()
        if "/shards/" in name:
            content = json.loads(data)
            data = json.dumps({k: v for k, v in content.items() if k not in ("timing", "sidecar_sha256")}).encode()
        found[name] = data
    return found


def test_a_sound_data_set_passes(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = _verify(capsys, out, "--recompute")
    assert (code, result["problems"]) == (0, [])
    assert (result["num_shards"], result["num_samples"]) == (4, 16)
    assert main(["verify", str(out), "--workers", "0"]) == 0
    assert "4 shards, 16 samples decoded: all is well" in capsys.readouterr().out


def test_every_flipped_byte_is_found_and_repaired(made: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, rng = _bytes(out), random.Random(1)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert len(files) == 4 * 3 + 2 * 2 + 1 + 2 + 2  # shards; plan and index; errors; wids; dataset and timm
    for path in files:
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        code, result = _verify(capsys, out)
        assert code == 1 and result["problems"], f"{path} at byte {place}"
        if path.suffix == ".parquet":
            data[place] = whole[str(path.relative_to(out))][place]
            path.write_bytes(data)
            continue
        code, result = _verify(capsys, out, "--repair")
        assert (code, result["problems"]) == (0, []), f"{path} at byte {place}"
        assert _bytes(out) == whole, path
        rest = {"train-000001.tar", "val-000000.tar"} & set(result["repaired"])
        assert len(result["repaired"]) <= 1 and (path.suffix != ".tar" or path.name in rest or result["repaired"])


def test_bytes_that_change_no_value_are_found_too(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = out / ".focusvit" / "shards" / "train-000001.json"
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole.replace(b"\n ", b"\t ", 1))
    assert json.loads(sidecar.read_bytes()) == json.loads(whole)
    code, result = _verify(capsys, out)
    assert code == 1 and "in other bytes" in result["problems"][0]["text"]
    assert _verify(capsys, out, "--repair")[0] == 0


def test_a_damaged_member_is_named_once_and_without_advice_to_verify(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = out / "train-000000.tar"
    data = place.read_bytes()
    at = data.index(b"\x93NUMPY")
    place.write_bytes(data[:at] + b"nothing" + data[at + 7 :])
    texts = [problem["text"] for problem in _verify(capsys, out)[1]["problems"]]
    (said,) = [text for text in texts if text.startswith("sample")]
    assert said.count("sample") == 1 and "its member merges.npy cannot be read" in said and "verify" not in said


def test_missing_cut_and_foreign_files_are_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "train-000000.tar").unlink()
    (out / "train-000001.tar").write_bytes((out / "train-000001.tar").read_bytes()[:3000])
    (out / ".focusvit" / "shards" / "val-000000.json").unlink()
    (out / "train-000077.tar").write_bytes(b"x")
    code, result = _verify(capsys, out)
    found = {problem["file"]: problem["text"] for problem in result["problems"]}
    assert code == 1 and set(found) == {"train-000000.tar", "train-000001.tar", "train-000077.tar", "val-000000.tar"}
    assert found["train-000000.tar"] == "is missing" and "does not belong" in found["train-000077.tar"]


def test_repair_from_a_moved_source_in_another_layout(
    made: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = {name: info.root_hash for name, info in open_dataset(str(out)).splits.items()}
    images = {**IMAGES, "n00000001": {**IMAGES["n00000001"], "bad.jpg": b"no image"}}
    moved = write_tar_of_tars(tmp_path / "moved" / "train.tar", images)
    data = bytearray((out / "train-000001.tar").read_bytes())
    data[2000] ^= 255
    (out / "train-000001.tar").write_bytes(data)
    code, result = _verify(capsys, out, "--repair", "--source", str(moved))
    assert (code, result["repaired"]) == (0, ["train-000001.tar"])
    assert {name: info.root_hash for name, info in open_dataset(str(out)).splits.items()} == roots


def test_wrong_places_in_a_plan_are_listed_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, place = _bytes(out), str(out / ".focusvit" / "plan-val.parquet")
    plan, description = load_plan(place)
    column = plan.table.schema.get_field_index("offset")
    table = plan.table.set_column(column, "offset", pa.array([0] * plan.num_samples))
    save_plan(place, replace(plan, table=table), description)
    code, result = _verify(capsys, out)
    assert code == 1 and ".focusvit/plan-val.parquet" in {problem["file"] for problem in result["problems"]}
    assert _verify(capsys, out, "--repair")[0] == 0
    assert _bytes(out) == whole


def test_repair_refuses_other_images(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "other", class_images(classes=2, per_class=6, start=9))
    (tmp_path / "other" / "n00000001" / "bad.jpg").write_bytes(b"no image")
    (out / "train-000000.tar").unlink()
    assert main(["verify", str(out), "--workers", "0", "--repair", "--source", str(tmp_path / "other")]) == 1
    assert "the images are not those of before" in capsys.readouterr().err
    assert _verify(capsys, out)[0] == 1
    assert main(["verify", str(out), "--workers", "0", "--repair", "--source", str(tmp_path / "none")]) == 2
    assert main(["verify", str(tmp_path)]) == 2


def test_an_interrupted_run_is_completed_by_repair(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(made / "out", tmp_path / "half"))
    whole = _bytes(out)
    for name in ("dataset.json", "_info.json", "train-000000.tar", ".focusvit/index-train.npy", "wids-train.json"):
        (out / name).unlink()
    assert _verify(capsys, out)[0] == 1
    code, result = _verify(capsys, out, "--repair")
    assert (code, result["repaired"]) == (0, ["train-000000.tar"])
    assert _bytes(out) == whole
