"""A segmentation head of Hugging Face on a patched DINOv2, trained by the library's own Trainer."""

import pytest
import torch
import transformers

import focusvit
from focusvit.drop_in.patch import Patch

pytest.importorskip("accelerate")
SIDE, PATCH, CLASSES = 32, 8, 3


def _model() -> torch.nn.Module:
    """UperNet on a Dinov2 backbone of four scales."""
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=SIDE, patch_size=PATCH,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=True,
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False, num_labels=CLASSES
    )
    return transformers.UperNetForSemanticSegmentation(config)


def _samples(count: int) -> list[dict[str, torch.Tensor]]:
    """Halves of two colours, at a border that differs; the map knows both."""
    colours = torch.tensor([[-1.0, 0.5, 1.0], [1.0, -0.5, 0.0]])
    samples = []
    for number in range(count):
        labels = (torch.arange(SIDE)[None] > 6 + 3 * (number % 6)).long().expand(SIDE, SIDE)
        maps = labels * 2 + (torch.arange(SIDE)[:, None] >= SIDE // 2)
        samples.append({"pixel_values": colours[labels].permute(2, 0, 1), "labels": labels, "maps": maps})
    return samples


def test_a_segmentation_head_learns_on_a_patched_dinov2(tmp_path):
    model = focusvit.patch(_model(), tokens=4, depth=2, feature_maps=True, merge="colour")
    state: Patch = model._focusvit_patch
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=6, max_steps=12, learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, remove_unused_columns=False, seed=0,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=_samples(24))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12 and sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert state.call is not None and state.call.levels[0].overlap.shape == (6, 4, 16)
    (sample,) = _samples(1)
    with torch.no_grad():
        out = model.eval()(pixel_values=sample["pixel_values"][None], maps=sample["maps"][None])
    assert out.logits.shape == (1, CLASSES, SIDE, SIDE)
