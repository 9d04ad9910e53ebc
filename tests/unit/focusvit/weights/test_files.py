"""Files that other libraries write, loaded from disk: the model gives their logits; damaged files are named."""

import argparse
import collections
import datetime
import gzip
import pathlib
import types

import numpy as np
import pytest
import torch

from focusvit.model.model import FocusViT
from focusvit.weights.files import read_weights
from focusvit.weights.pretrained import load_pretrained
from testkit import model_reference as reference

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _target() -> FocusViT:
    torch.manual_seed(3)
    return FocusViT(
        reference.tiny_config(
            image_px=16, patch_px=4, stem="linear", position="pooled", tokens=None, grid_depth=0, num_classes=5
        )
    ).eval()


def _shape():
    config = _target().config
    return {"width": config.width, "depth": config.depth, "heads": config.heads}


def _hugging_face():
    import transformers

    shape = _shape()
    config = transformers.ViTConfig(
        hidden_size=shape["width"], num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"], image_size=16, patch_size=4, num_labels=5, layer_norm_eps=1e-6,
    )  # fmt: skip
    return reference.shaken(transformers.ViTForImageClassification(config)).eval()


def _timm():
    timm = pytest.importorskip("timm", reason="timm is not installed (tests/benchmarks/peers/vit_libraries.sh)")
    shape = _shape()
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=shape["width"], depth=shape["depth"], num_heads=shape["heads"],
        num_classes=5,
    )  # fmt: skip
    return reference.shaken(model).eval()


def _torchvision():
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed (.../vit_libraries.sh)")
    shape = _shape()
    model = models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=shape["depth"], num_heads=shape["heads"], hidden_dim=shape["width"],
        mlp_dim=4 * shape["width"], num_classes=5,
    )  # fmt: skip
    return reference.shaken(model).eval()


@pytest.mark.parametrize("make", [_hugging_face, _timm, _torchvision], ids=lambda make: make.__name__.strip("_"))
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@torch.no_grad()
def test_a_file_of_each_library_gives_its_logits(tmp_path, make, ending):
    from safetensors.torch import save_file

    source, model, place = make(), _target(), tmp_path / f"weights.{ending}"
    weights = {name: value.contiguous() for name, value in source.state_dict().items()}
    if ending == "safetensors":
        save_file(weights, place)
    else:
        torch.save({"state_dict": weights}, place)
    report = load_pretrained(model, place)
    assert report.new == () and report.left_out == {}
    out = source(IMAGES)
    torch.testing.assert_close(model(IMAGES), getattr(out, "logits", out), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_that_hugging_face_saved_in_several_files_loads_by_its_folder(tmp_path):
    source, model = _hugging_face(), _target()
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert load_pretrained(model, tmp_path).new == ()
    torch.testing.assert_close(model(IMAGES), source(IMAGES).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_damaged_file_is_named(tmp_path, name):
    from safetensors.torch import save_file

    save = save_file if name.endswith("safetensors") else torch.save
    save({"a": torch.zeros(1000)}, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:100], b"", b"no weights at all"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights") as error:
            read_weights(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.safetensors"):
        read_weights(tmp_path / "empty")


PLAIN = {"cls_token": torch.ones(1, 1, 4), "blocks.0.norm1.weight": torch.full((4,), 2.0)}
RAW = {name: value * 0 for name, value in PLAIN.items()}


def wrapped(prefix: str, values: dict | None = None) -> dict:
    return {prefix + name: value for name, value in (values or PLAIN).items()}


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.pt", "w.ckpt", "w.pth.tar", "w.safetensors", "w"])
@pytest.mark.parametrize("saver", ["torch", "legacy", "safetensors"])
def test_a_format_is_known_by_content_whatever_the_ending(tmp_path, name, saver):
    from safetensors.torch import save_file

    if saver == "safetensors":
        save_file(PLAIN, tmp_path / name)
    else:
        torch.save(PLAIN, tmp_path / name, _use_new_zipfile_serialization=saver == "torch")
    found = read_weights(tmp_path / name)
    assert found.keys() == PLAIN.keys() and all(torch.equal(found[key], PLAIN[key]) for key in PLAIN)


@pytest.mark.parametrize(
    "content",
    [
        {"model": PLAIN, "args": argparse.Namespace(lr=1e-3, out=pathlib.PosixPath("/x")), "epoch": 3},
        {"state_dict": wrapped("module."), "best_acc1": np.float64(71.5), "arch": "vit", "optimizer": {"state": {}}},
        {"state_dict": wrapped("module._orig_mod."), "rng": np.arange(3), "k": np.int64(1), "b": np.bool_(True)},
        {"model": {"state_dict": PLAIN}, "half": np.float32(1), "when": types.SimpleNamespace(day=1)},
        {"state_dict": wrapped("model."), "pytorch-lightning_version": "2.0", "callbacks": {}, "hyper_parameters": {}},
        {"net": PLAIN, "acc": 1.0},
        {"model_state_dict": collections.OrderedDict(PLAIN), "loss": torch.tensor(1.0)},
        {"state_dict_ema": PLAIN, "state_dict": RAW, "epoch": 1},
        {"model_ema": wrapped("module."), "model": RAW},
        {"ema": {"decay": 0.9}, "model": PLAIN},
        {"ema": {"state_dict": PLAIN}, "state_dict": RAW},
        {"teacher": wrapped("backbone."), "student": wrapped("module.backbone.", RAW)},
        {"state_dict": {**wrapped("ema_model."), **wrapped("model.", RAW)}},
        {**PLAIN, "epoch": 5, "name": "vit"},
    ],
)  # fmt: skip
def test_the_tensors_are_found_where_programs_put_them(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == PLAIN.keys() and all(torch.equal(found[key], PLAIN[key]) for key in PLAIN)


def test_it_is_said_that_averaged_weights_are_taken(tmp_path, caplog):
    torch.save({"model_ema": PLAIN, "model": RAW}, tmp_path / "w.pth")
    torch.save({"model": PLAIN}, tmp_path / "raw.pth")
    read_weights(tmp_path / "raw.pth")
    assert caplog.messages == []
    read_weights(tmp_path / "w.pth")
    assert "'model_ema' is taken, the averaged weights" in caplog.messages[0]


class Config:
    """Stands for a class of somebody's program."""


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": PLAIN, "config": Config()}, r"holds an object of [\w.]*test_files\.Config"),
        (torch.nn.Linear(2, 2), r"holds an object of torch\.nn\.modules\.linear\.Linear"),
        ({"model": PLAIN, "when": datetime.datetime(2026, 1, 1)}, r"holds an object of datetime\.datetime"),
        ({"epoch": 3, "optimizer": {"lr": 1}}, "does not hold a table of tensors .dict with epoch, optimizer"),
        ([torch.ones(1)], "does not hold a table of tensors .list"),
        ({}, "does not hold a table of tensors"),
    ],
)
def test_what_is_not_loaded_is_named_in_one_sentence(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=words) as error:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)


def test_a_file_that_would_run_something_does_not(tmp_path):
    torch.save({"model": PLAIN, "x": Runs(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds an object of pathlib\.Path\.touch|cannot be read|holds an object of"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_files_of_another_kind_are_called_by_their_name(tmp_path):
    np.savez(tmp_path / "a.npz", kernel=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "npz.pth")
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>")
    (tmp_path / "h5.pth").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "zipped.pth").write_bytes(gzip.compress(b"x"))
    told = {"npz": "npz", "lfs": "Git LFS", "page": "web page", "h5": "HDF5", "zipped": "compressed"}
    for name, words in told.items():
        with pytest.raises(ValueError, match=words) as error:
            read_weights(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value)


def test_a_distillation_token_is_named():
    weights = {**_target().state_dict(), "dist_token": torch.zeros(1, 1, 16), "pos_embed": torch.zeros(1, 18, 16)}
    with pytest.raises(ValueError, match=r"distillation token \(dist_token\)"):
        load_pretrained(_target(), weights)


def test_names_of_a_wrapped_model_are_those_of_the_model(tmp_path):
    model = _target()
    wrapped = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    assert read_weights(tmp_path / "wrapped.pth").keys() == model.state_dict().keys()
