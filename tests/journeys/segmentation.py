"""Segmentation by superpixels: `python -m tests.journeys.segmentation`.

A small FocusViT, a linear probe on the features of its regions, and answers with exact borders. Scenes and masks are
drawn. For data sets and published protocols: `focusvit transfer --suite dense`. The cells (# %%) run one by one.
"""

# %% A model, scenes with exact masks, and their superpixels
import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

import focusvit
from focusvit.box.names import names
from focusvit.model import presets
from pipeline.image.borders import draw_borders
from pipeline.sources.embedded import draw_shape
from tests.journeys.steps import fresh_folder

out = fresh_folder("segmentation")
TOKENS, NUM_TRAIN, NUM_TEST = 36, 80, 16
torch.manual_seed(0)
# A model that comes with the package where there is one; else random weights, which tell less.
model = focusvit.load(names()[0]) if names() else focusvit.FocusViT(presets.focusvit_64px(width=96, depth=3, heads=3))
SIDE = model.config.image_size[0]
rng = np.random.default_rng(0)
scenes, masks = zip(*(draw_shape(rng, i % 8, SIDE) for i in range(NUM_TRAIN + NUM_TEST)))
images = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2)
maps = torch.from_numpy(np.stack([focusvit.superpixels(scene, TOKENS) for scene in scenes]))

# %% A row for each region: the model's features, its mean colour, and how both differ from the whole image's.
model.eval()
with torch.inference_mode():
    rows = model.token_features(images, maps, TOKENS)[1]  # (B, K, D)
ids = maps.flatten(1)[:, None] == torch.arange(TOKENS)[:, None]  # (B, K, pixels)
area = ids.sum(2, keepdim=True)
colour = ids.float() @ images.flatten(2).transpose(1, 2).float() / area / 255
rows = torch.cat([rows, colour], 2)
rows = torch.cat([rows, (rows - rows.mean(1, keepdim=True)).abs()], 2).numpy()

# %% What a region is: the class that most of its pixels have
labels = torch.from_numpy(np.stack(masks)).flatten(1)
share = (ids.float() @ labels[..., None].float() / area)[..., 0]
wanted = (share > 0.5).long().numpy()

# %% A linear probe, and its answers painted back on pixels
probe = LogisticRegression(max_iter=500).fit(rows[:NUM_TRAIN].reshape(-1, rows.shape[2]), wanted[:NUM_TRAIN].ravel())
test = slice(NUM_TRAIN, None)
answers = torch.from_numpy(probe.predict(rows[test].reshape(-1, rows.shape[2])).reshape(NUM_TEST, TOKENS))
painted = answers.gather(1, maps[test].flatten(1))


def iou(found: torch.Tensor) -> float:
    truth = labels[test].bool()
    return ((found.bool() & truth).sum() / (found.bool() | truth).sum()).item()


best = torch.from_numpy(wanted)[test].gather(1, maps[test].flatten(1))
print(f"IoU of the shape: probe {iou(painted):.1%}, all pixels called shape {iou(torch.ones_like(painted)):.1%}, "
      f"the most that {TOKENS} regions can give {iou(best):.1%}")  # fmt: skip

# %% Scene with regions, truth, answer
rows_shown = []
for i in range(4):
    number = NUM_TRAIN + i
    sides = [draw_borders(scenes[number], maps[number].numpy())]
    for values in (masks[number], painted[i].view(SIDE, SIDE).numpy()):
        sides.append(np.repeat((values * 255).astype(np.uint8)[..., None], 3, 2))
    rows_shown.append(np.concatenate(sides, 1))
picture = Image.fromarray(np.concatenate(rows_shown, 0))
picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.NEAREST).save(out / "segmentation.png")
print(f"picture: {out / 'segmentation.png'}")
