"""Own photos, from class folders to a model and its answers: `python -m tests.journeys.own_photos [PHOTOS]`.

PHOTOS holds a folder of photos for each class; without it some are drawn. The cells (# %%) run one by one in an editor.
"""

# %% The photos, and where everything goes
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import focusvit
from focusvit.box.names import names
from pipeline.image.borders import draw_borders
from pipeline.sources.embedded import SHAPE_CLASSES, write_shapes
from tests.journeys.steps import focusvit_command, fresh_folder

out = fresh_folder("own_photos")
if len(sys.argv) > 1:
    photos = Path(sys.argv[1])
else:
    write_shapes(out / "drawn", train_per_class=24, val_per_class=1)
    photos = out / "drawn" / "train"

# %% Shards with superpixel maps: four fifths of each class to learn from, one fifth to score on
for split in ("train", "val"):
    focusvit_command(
        "preprocess", "--source", photos, "--out", out / "shards", "--split", split, "--val-share", 0.2, "--local"
    )

# %% Look at them before anything is trained
focusvit_command("show", out / "shards", "--split", "val", "--out", out / "superpixels.png", "--count", 4)

# %% Train: from a model that comes with the package where there is one, else from scratch
start = ["finetune", "--checkpoint", names()[0]] if names() else ["pretrain", "demo"]
where = ["--data", out / "shards", "--run-dir", out / "run", "--tracking-uri", f"sqlite:///{out}/mlflow.db"]
focusvit_command(*start, *where, "--local", "--epochs", 6)

# %% The model in Python: answers with the superpixels that it was shown
model = focusvit.load(out / "run")
some = sorted(path for path in photos.rglob("*") if path.suffix in (".jpg", ".png"))[:: max(1, len(SHAPE_CLASSES) * 3)]
answers = model.predict(some[:8])
for path, answer in zip(some, answers):
    print(f"{path.parent.name}/{path.name}: {answer.name} {answer.share:.0%}")

# %% The same as a picture
cells = []
for answer in answers:
    shown = np.asarray(Image.fromarray(answer.image).resize((192, 192), Image.Resampling.BICUBIC))
    cell = Image.new("RGB", (192, 212), "white")
    cell.paste(Image.fromarray(draw_borders(shown, np.asarray(answer.superpixels))))
    ImageDraw.Draw(cell).text((4, 196), f"{answer.name} {answer.share:.0%}", fill="black")
    cells.append(np.asarray(cell))
Image.fromarray(np.concatenate(cells, 1)).save(out / "answers.png")
print(f"pictures: {out / 'superpixels.png'} and {out / 'answers.png'}")
