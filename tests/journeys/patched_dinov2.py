"""Superpixels inside a ViT that you already have: `python -m tests.journeys.patched_dinov2 [VIT]`.

VIT is a folder of Hugging Face's (a Dinov2, ViT, DINOv3, ...). Without it a small Dinov2 with random weights stands in:
the commands are the same, its features mean little. The cells (# %%) run one by one in an editor.
"""

# %% The host, and an image
import sys
import time

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, Dinov2Config, Dinov2Model

import focusvit
from pipeline.image.borders import draw_borders
from pipeline.sources.embedded import draw_shape
from tests.journeys.steps import fresh_folder

out = fresh_folder("patched_dinov2")
SIDE, TOKENS, MEAN, STD = 224, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
torch.manual_seed(0)
if len(sys.argv) > 1:
    host = AutoModel.from_pretrained(sys.argv[1]).eval()
else:
    host = Dinov2Model(
        Dinov2Config(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, image_size=SIDE, patch_size=14)
    ).eval()
photo = draw_shape(np.random.default_rng(3), 5, SIDE)[0]
pixels = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


# %% Its own features of each patch
def patches_and_seconds() -> tuple[torch.Tensor, float]:
    with torch.inference_mode():
        host(pixels)  # warm
        started = time.process_time()
        hidden = host(pixels).last_hidden_state
    return hidden[:, -((SIDE // host.config.patch_size) ** 2) :], time.process_time() - started


whole, whole_s = patches_and_seconds()

# %% Patched in place: from the middle on it computes with 64 superpixels; shapes and weights are its own
focusvit.patch(host, tokens=TOKENS, depth=host.config.num_hidden_layers // 2, mean=MEAN, std=STD, merge="colour")
pooled, pooled_s = patches_and_seconds()
assert pooled.shape == whole.shape
likeness = torch.nn.functional.cosine_similarity(whole, pooled, dim=-1).mean()
print(f"CPU seconds {whole_s:.3f} -> {pooled_s:.3f}, superpixels included; mean cosine of the features {likeness:.3f}")

# %% Undone: the host answers as before
focusvit.unpatch(host)
assert torch.equal(patches_and_seconds()[0], whole)

# %% Features on pixels, with the borders of the image: their three main directions as colours
side = whole.shape[1] ** 0.5
maps = torch.from_numpy(focusvit.superpixels(photo, TOKENS))[None]
columns = [draw_borders(photo, maps[0].numpy())]
for features in (whole, pooled):
    painted = focusvit.superpixel_readout(features, maps, TOKENS)[0].flatten(1).T  # (pixels, D)
    colours = torch.pca_lowrank(painted, q=3)
    values = (painted - painted.mean(0)) @ colours[2]
    low, high = values.amin(0), values.amax(0)
    columns.append(((values - low) / (high - low).clamp(min=1e-6) * 255).byte().view(SIDE, SIDE, 3).numpy())
Image.fromarray(np.concatenate(columns, 1)).save(out / "features.png")
print(f"picture (superpixels; whole; patched): {out / 'features.png'}")
