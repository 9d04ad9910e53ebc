"""An exported file predicts what its checkpoint predicts, without torch; what is wrong with a file is named."""

import functools
import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib

import fsspec
import numpy as np
import onnx
import pytest
import torch

from focusvit import cli
from focusvit.predict import export, predict
from focusvit.predict.onnx_predictor import KEY, OnnxPredictor, read_record
from focusvit.predict.predictor import Predictor
from focusvit.runs.checkpoint import read_checkpoint, save_checkpoint
from focusvit.runs.checkpoint_record import record_at
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from testkit.tiny_shards import make_dataset


@pytest.fixture(scope="module")
def road(tmp_path_factory, exported):
    """A checkpoint, its ONNX file of batch 4, and a folder of seven images."""
    root = tmp_path_factory.mktemp("onnx")
    images = root / "images"
    split = open_dataset(make_dataset(root / "data", splits={"val": 7})).split("val")
    images.mkdir()
    for i in range(7):
        (images / f"{i}.jpg").write_bytes(split.read(i).image)
    return *exported, images


def test_the_verb_predicts_without_torch_and_ray_what_the_checkpoint_predicts(road):
    checkpoint, file, images = road
    code = (
        "import sys; from focusvit import cli;"
        f"code = cli.main(['predict', '--onnx', {str(file)!r}, '--json', '--top', '4', {str(images)!r}]);"
        "print([m for m in ('torch', 'ray', 'mlflow', 'albumentations', 'pyarrow') if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    assert last == "[] 0" and len(lines) == 7
    predictor = Predictor.of(checkpoint)
    for line, path in zip(map(json.loads, lines), sorted(images.iterdir())):
        (wanted,) = predictor.predict([predictor.view(path.read_bytes())])
        for one in line["top"]:
            assert one["share"] == pytest.approx(float(wanted.shares[predictor.classes.index(one["class"])]), abs=1e-5)


def test_the_file_says_what_it_is(road):
    checkpoint, file, _ = road
    record = OnnxPredictor(str(file)).record
    assert record.classes == Predictor.of(checkpoint).classes and (record.batch_size, record.precision) == (4, "fp32")
    assert record.view == Predictor.of(checkpoint).view_config and record.view.tokens == 9 and record.view.map_px == 32
    assert record.mean == (0.485, 0.456, 0.406) and record.checkpoint == checkpoint
    values = json.loads(next(p.value for p in onnx.load(file).metadata_props if p.key == KEY))
    assert values["format_version"] == 1 and values["view"]["superpixels"]["fine_regions"] == 256
    assert read_record(json.dumps(values), "x") == record


def test_a_torch_export_archive_runs_and_says_what_it_is(road, tmp_path):
    checkpoint, _, images = road
    place = tmp_path / "model.pt2"
    argv = ["--checkpoint", checkpoint, "--out", str(place), "--batch-size", "7", "--images", str(images)]
    assert export.main(argv) == 0
    extra = {KEY: ""}
    program = torch.export.load(place, extra_files=extra)
    assert read_record(extra[KEY], "x").batch_size == 7
    predictor = Predictor.of(checkpoint)
    views = [predictor.view(path.read_bytes()) for path in sorted(images.iterdir())]
    pixels = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2).contiguous()
    maps = torch.from_numpy(np.stack([view.map for view in views]))
    shares = torch.softmax(program.module()(pixels, maps), 1).detach().numpy()
    np.testing.assert_allclose(shares, np.stack([one.shares for one in predictor.predict(views)]), atol=1e-5)


def test_int8_and_other_budgets(road, tmp_path, capsys):
    checkpoint, _, images = road
    small = str(tmp_path / "small.onnx")
    argv = ["--checkpoint", checkpoint, "--out", small, "--int8", "--tokens", "5", "--images", str(images)]
    assert export.main(argv) == 0
    assert "int8, batch 1, 5 superpixels" in (out := capsys.readouterr().out) and "on 7 images" in out
    assert OnnxPredictor(small).record.precision == "int8"
    assert predict.main(["--onnx", small, str(images), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 7


@pytest.mark.soak
def test_a_model_without_maps_predicts_from_its_file(road, tmp_path):
    plain, images = str(tmp_path / "plain.onnx"), road[2]
    assert export.main(["--checkpoint", make_checkpoint(tmp_path / "vit", tokens=None), "--out", plain]) == 0
    assert predict.main(["--onnx", plain, str(images), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 7


@pytest.fixture
def web(road):
    """The folder of images behind http://."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(road[2]))
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_folders_and_addresses_of_any_kind_may_be_mixed(road, web, capsys):
    _, file, images = road
    memory = fsspec.filesystem("memory")
    for i in (0, 1):
        memory.pipe_file(f"/pictures/{i}.jpg", (images / f"{i}.jpg").read_bytes())
    places = [f"{web}/3.jpg", "memory://pictures", str(images / "2.jpg"), f"file://{images}/4.jpg"]
    assert predict.main(["--onnx", str(file), "--json", *places]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"].rsplit("/", 1)[-1] for line in lines] == ["3.jpg", "0.jpg", "1.jpg", "2.jpg", "4.jpg"]
    assert predict.main(["--onnx", str(file), "--json", *(str(images / f"{i}.jpg") for i in (3, 0, 1, 2, 4))]) == 0
    local = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["top"] for line in lines] == [line["top"] for line in local]
    with pytest.raises(UsageError, match=r"3-none\.jpg does not exist"):
        predict.main(["--onnx", str(file), f"{web}/3-none.jpg"])


def png_that_states(width: int, height: int) -> bytes:
    """A few bytes that promise a picture of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_corrupt_and_huge_images_among_good_ones_are_named(road, tmp_path, capsys):
    _, file, images = road
    shutil.copytree(images, tmp_path / "all")
    (tmp_path / "all" / "huge.png").write_bytes(png_that_states(60_000, 60_000))
    (tmp_path / "all" / "cut.jpg").write_bytes((images / "0.jpg").read_bytes()[:200])
    assert cli.main(["predict", "--onnx", str(file), str(tmp_path / "all"), "--json"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert sum("top" in line for line in lines) == 7
    errors = {line["image"].rsplit("/", 1)[-1]: line["error"] for line in lines if "error" in line}
    assert sorted(errors) == ["cut.jpg", "huge.png"] and "states more than" in errors["huge.png"]
    assert "2 could not be read" in err


def with_record(file, place, change) -> str:
    """A copy of an ONNX file with another record."""
    model = onnx.load(file)
    (entry,) = model.metadata_props
    values = json.loads(entry.value)
    change(values)
    entry.value = json.dumps(values)
    onnx.save(model, place)
    return str(place)


def test_files_of_another_version_or_kind_are_named(road, tmp_path, capsys):
    _, file, images = road
    other = with_record(file, tmp_path / "other.onnx", lambda values: values.update(format_version=2))
    assert cli.main(["predict", "--onnx", other, str(images)]) == 1
    assert f"{other} has export format 2; this version reads 1" in capsys.readouterr().err
    unknown = with_record(file, tmp_path / "unknown.onnx", lambda values: values.update(colour="red"))
    with pytest.raises(DataError, match="unknown key 'colour'"):
        OnnxPredictor(unknown)
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(DataError, match="no model that `focusvit export` wrote"):
        OnnxPredictor(str(tmp_path / "plain.onnx"))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(DataError, match="cannot be loaded by onnxruntime"):
        OnnxPredictor(str(tmp_path / "text.onnx"))
    with pytest.raises(UsageError, match="does not exist"):
        OnnxPredictor(str(tmp_path / "none.onnx"))


def test_a_checkpoint_of_another_width_is_named(road, tmp_path, capsys):
    checkpoint, _, images = road
    edit_checkpoint(make_checkpoint(tmp_path / "mixed", width=48), model=record_at(checkpoint).model)
    for argv in (["predict", str(images)], ["export", "--out", str(tmp_path / "x.onnx")]):
        assert cli.main([*argv, "--checkpoint", str(tmp_path / "mixed")]) == 1
        assert "48) there and" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("verb", "argv", "words"),
    [
        (predict, ["a.jpg"], "either --checkpoint or --onnx"),
        (predict, ["--onnx", "m.onnx", "--checkpoint", "c", "a.jpg"], "either --checkpoint or --onnx"),
        (predict, ["--onnx", "m.onnx", "--tokens", "9", "a.jpg"], "leave out --tokens"),
        (export, ["--checkpoint", "c", "--out", "m.pth"], r"\.onnx or \.pt2"),
        (export, ["--checkpoint", "c", "--out", "m.pt2", "--int8"], "--int8 writes ONNX"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(verb, argv, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        verb.main(argv)
    assert stopped.value.code == 2 and re.search(words, " ".join(capsys.readouterr().err.split()))


@pytest.mark.soak
@pytest.mark.skipif("FOCUSVIT_DATA" not in os.environ, reason="needs $FOCUSVIT_DATA")
@pytest.mark.timeout(1800)
def test_an_exported_focusvit_s_gives_eager_answers_on_every_real_photo(tmp_path, capsys):
    photos = os.environ["FOCUSVIT_DATA"] + "/imagenet-sample"
    classes = tuple(f"class {i}" for i in range(1000))
    shape = {"image_px": 224, "patch_px": 16, "width": 384, "depth": 12, "heads": 6, "tokens": 64}
    checkpoint = make_checkpoint(tmp_path / "ckpt", classes=classes, **shape)
    record, weights = read_checkpoint(checkpoint)
    weights["head.weight"].normal_(0, 1)  # so that photos get different answers
    save_checkpoint(checkpoint, record, weights)
    argv = ["--checkpoint", checkpoint, "--images", photos, "--num-images", "1000"]
    for option, least in (([], 1.0), (["--int8"], 0.9)):
        file = str(tmp_path / "model.onnx")
        assert export.main([*argv, "--out", file, *option]) == 0
        report = capsys.readouterr().out
        with capsys.disabled():
            print(report)
        assert "on 320 images" in report
        share = float(re.search(r"same for ([\d.]+)%", report).group(1)) / 100
        assert share >= least
    assert predict.main(["--onnx", file, photos, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 320
    answers = {line["top"][0]["class"] for line in lines}
    assert len(answers) > 2
