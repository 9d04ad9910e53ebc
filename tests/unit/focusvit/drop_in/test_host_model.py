"""A host of another library is a model like any other: trained, stopped, resumed, scored, asked and exported."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from focusvit.drop_in.host_config import HostConfig
from focusvit.drop_in.host_model import HostModel
from focusvit.drop_in.settings import controls_of, with_patch
from focusvit.predict import evaluate, export
from focusvit.predict import predict as predict_verb
from focusvit.recipes.small import finetune
from focusvit.runs.checkpoint import load_checkpoint, load_model
from focusvit.train.loop import for_dataset, train
from focusvit.train.optim import OptimConfig, parameter_groups
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from testkit.hosts import GRID, SIDE, save_host
from testkit.tiny_shards import CLASSES, make_dataset
from testkit.tiny_training import final_tensors, run_with_stops, values_of

PATCH = ("tokens=4", "depth=2", "merge=colour")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A data set, and a run that fine-tuned a patched host, whose own folder is gone since."""
    root = tmp_path_factory.mktemp("host")
    data = make_dataset(root / "data", splits={"train": 32, "val": 8})
    save_host(root / "dino", "Dinov2ForImageClassification")
    start = finetune(load_checkpoint(str(root / "dino"), PATCH))
    config = dataclasses.replace(start, epochs=3, global_batch=16, log_every_steps=1, checkpoint_every_epochs=1)
    config = for_dataset(config, open_dataset(data))
    train(config, data_uri=data, run_dir=str(root / "run"))
    shutil.copytree(root / "dino", root / "other")
    shutil.rmtree(root / "dino")
    return root, data, config, str(root / "run")


def test_its_training_stops_and_goes_on_to_the_same_bits(road):
    root, data, config, run = road
    again = dataclasses.replace(config, init_from=str(root / "other"))
    run_with_stops(again, data, str(root / "stopped"), stops=2)
    assert values_of(root / "stopped") == values_of(run)
    expected = final_tensors(run)
    assert all(torch.equal(value, expected[name]) for name, value in final_tensors(root / "stopped").items())
    assert any("exp_avg.host." in name for name in expected)


def test_its_checkpoint_says_what_it_is_and_needs_no_folder_of_the_library(road):
    _, _, _, run = road
    model, record = load_model(run)
    assert isinstance(model, HostModel) and record.classes == CLASSES
    assert (model.config.architecture, model.config.levels) == ("Dinov2Model", ((2, 4),))
    plain, _ = load_model(run, patch=("tokens=all",))
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    whole = torch.arange(GRID * GRID).view(1, GRID, GRID).expand(2, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(model(images, whole, 16), plain(images), atol=1e-5, rtol=1e-5)


def test_evaluate_predict_and_export_take_it(road, tmp_path, capsys):
    root, data, _, run = road
    assert evaluate.main(["--checkpoint", run, "--data", data, "--tokens", "4,9", "--json"]) == 0
    assert '"tokens": 9' in capsys.readouterr().out
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(open_dataset(data).split("val").read(0).image)
    assert predict_verb.main(["--checkpoint", run, str(photo)]) == 0
    assert any(name in capsys.readouterr().out for name in CLASSES)
    assert export.main(["--checkpoint", run, "--out", str(tmp_path / "model.onnx")]) == 0
    assert predict_verb.main(["--onnx", str(tmp_path / "model.onnx"), str(photo)]) == 0
    with pytest.raises(UsageError, match="knows no classes"):
        predict_verb.main(["--checkpoint", str(root / "other"), str(photo)])


def test_layers_decay_by_the_order_of_the_host(road):
    model, _ = load_model(road[3])
    scale = {
        id(p): group["lr_scale"]
        for group in parameter_groups(model, OptimConfig(layer_decay=0.5))
        for p in group["params"]
    }
    named = dict(model.named_parameters())
    assert scale[id(named["head.weight"])] == scale[id(named["host.layernorm.weight"])] == 1.0
    assert scale[id(next(model.blocks[3].parameters()))] == 0.5
    assert scale[id(next(model.blocks[0].parameters()))] == 0.5**4
    assert scale[id(named["host.embeddings.cls_token"])] == 0.5**5


@torch.inference_mode()
def test_a_batch_in_slices_is_the_batch(road):
    model, _ = load_model(road[3])
    images = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    maps = torch.from_numpy(np.arange(64).reshape(8, 8) // 16).expand(5, -1, -1)
    whole = model(images, maps)
    model.images_at_once = 2
    torch.testing.assert_close(model(images, maps), whole, atol=1e-5, rtol=1e-5)


def test_controls_spend_as_many_tokens():
    host = HostConfig(
        library="timm", architecture="x", settings="{}", image_px=224, patch_px=14, width=8, depth=12,
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    ours = with_patch(host, ("tokens=0.5", "depth=6"))
    assert ours.levels == ((6, 128),) and ours.mean_tokens == 192
    controls = {name: with_patch(host, patch) for name, patch in controls_of(ours).items()}
    assert controls["all patches"] == host
    assert controls["grid"] == dataclasses.replace(ours, merge="grid")
    assert controls["token merging"].mean_tokens == pytest.approx(192, abs=1)
    assert controls["fewer pixels"].num_patches == 14 * 14
    nested = with_patch(host, ("tokens=2:196,5:100,8:64",))
    assert nested.mean_tokens == (2 * 256 + 3 * 196 + 3 * 100 + 4 * 64) / 12
    assert with_patch(host, controls_of(nested)["grid"]).levels == nested.levels
