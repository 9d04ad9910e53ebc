"""Plain ViTs of other libraries enter the suite with the features of their own code, or the error says why not."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.runs.checkpoint import load_model
from pipeline.errors import UsageError
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.tasks.plain_vit import as_checkpoint
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task

HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "input_size": [3, 32, 32], "crop_pct": 0.9}


def timm_folder(folder, **changes):
    """What timm puts on the hub for a small ViT; FocusViT's plain ViT has timm's names and shapes."""
    torch.manual_seed(0)
    config = FocusViTConfig(
        image_px=32, patch_px=8, width=48, depth=2, heads=3, num_classes=7, stem="linear", grid_depth=0, tokens=None,
        position="pooled", mean=tuple(HALF["mean"]), std=tuple(HALF["std"]),
    )  # fmt: skip
    model = FocusViT(config).eval()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    said = {"architecture": "vit_tiny_patch8_32", "num_classes": 7, "pretrained_cfg": HALF, **changes}
    (folder / "config.json").write_text(json.dumps(said))
    return model


def test_a_timm_folder_gives_the_features_of_its_weights(tmp_path):
    original = timm_folder(tmp_path / "vit")
    place = as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out"))
    model, record = load_model(place)
    images = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model(images), original(images))
    assert record.config["data"]["eval_crop_fraction"] == 0.9 and record.num_classes == 7
    assert as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out")) == place


def test_a_hugging_face_folder_gives_the_features_of_its_own_code(tmp_path):
    import transformers

    torch.manual_seed(1)
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96,
        num_labels=5,
    )  # fmt: skip
    original = transformers.ViTForImageClassification(config).eval()
    original.save_pretrained(tmp_path / "vit")
    model, record = load_model(as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out")))
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        theirs = original((images / 255 - 0.5) / 0.5).logits
        torch.testing.assert_close(model(images), theirs, atol=1e-4, rtol=1e-4)
    assert record.classes[0] == "LABEL_0"


def test_it_goes_through_the_suite_like_any_checkpoint(tmp_path):
    timm_folder(tmp_path / "vit")
    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 12})
    spec = WorkSpec(
        task=Task(name="tiny", uri=data), checkpoint=as_checkpoint(str(tmp_path / "vit"), str(tmp_path)), suite="quick",
        out=str(tmp_path / "results"), features_folder=str(tmp_path / "features"),
    )  # fmt: skip
    outcome = run_task(spec)
    assert outcome.failures == [] and {row.features for row in outcome.rows} == {"checkpoint", "random", "pixels"}
    assert np.isfinite([row.value for row in outcome.rows]).all()


def test_our_own_checkpoints_and_other_folders_stay_as_they_are(tmp_path):
    mine = make_checkpoint(tmp_path / "ckpt")
    assert as_checkpoint(mine, str(tmp_path)) == mine
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"config": {}, "facts": {}}')
    assert as_checkpoint(str(tmp_path / "run"), str(tmp_path)) == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "resnet50"}, "timm's 'resnet50'"),
        ({"architecture": "vit_huge_patch14_224"}, "sizes tiny, small"),
        ({"model_type": "swin"}, "is a 'swin' of Hugging Face"),
    ],
)
def test_what_is_no_plain_vit_is_refused_with_its_name(tmp_path, changes, words):
    timm_folder(tmp_path / "vit", **changes)
    with pytest.raises(UsageError, match=words):
        as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out"))


def test_missing_weights_and_unknown_tensors_are_named(tmp_path):
    timm_folder(tmp_path / "vit")
    tensors = (
        dict.fromkeys(["reg_token"], torch.zeros(1, 4, 48))
        | load_model(as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out")))[0].state_dict()
    )
    save_file(tensors, tmp_path / "vit" / "model.safetensors")
    with pytest.raises(UsageError, match=r"reg_token .*the model has no such part"):
        as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out"))
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"none of model\.safetensors"):
        as_checkpoint(str(tmp_path / "vit"), str(tmp_path / "out"))
