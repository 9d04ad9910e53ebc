"""The card of a model on the Hugging Face hub: what it is, how it came to be, how to use it, by its record alone."""

import dataclasses
from pathlib import Path

from focusvit.box.names import BOX, About, about, names
from focusvit.model.config import FocusViTConfig
from focusvit.runs.checkpoint_record import Checkpoint

_USE = """## Use

```python
import focusvit

model = focusvit.load("OWNER/NAME")   # or the folder of this file
{call}
```

`focusvit finetune --checkpoint FOLDER --data SHARDS --run-dir RUN` goes on from it.
"""
_PREDICT = """for answer in model.predict(["photo.jpg"]):
    print(answer.name, answer.share)"""
_EMBED = """features = model.embed(["photo.jpg"])   # it was pretrained without labels: (1, D)"""


def card_text(config: FocusViTConfig, record: Checkpoint, num_parameters: int) -> str:
    """Markdown with the hub's own header."""
    place = Path(record.uri)
    known = about(place.name) if place.parent == BOX and place.name in names() else None
    tokens = f"{config.tokens} superpixels" if config.tokens else f"{config.num_patches} patches"
    lines = [
        "---",
        *([f"license: {known.licence.lower()}"] if known else []),
        "library_name: focusvit",
        "pipeline_tag: image-classification" if record.classes else "pipeline_tag: image-feature-extraction",
        "tags:\n- superpixels\n- vision-transformer",
        "---",
        "# A FocusViT",
        f"{num_parameters / 1e6:.2f} M parameters, {config.image_px} px, {tokens}, width {config.width}, depth "
        f"{config.depth}; {len(record.classes) or 'no'} classes; {record.samples_seen:,} samples seen in training.",
    ]
    lines += [_made(known)] if known else []
    scores = "\n".join(f"- {name}: {value:.4g}" for name, value in sorted(record.metrics.items()))
    lines += [f"## Scores of its training\n\n{scores}"] if scores else []
    return (
        "\n\n".join(lines).replace("---\n\n", "---\n", 1)
        + "\n\n"
        + _USE.format(call=_PREDICT if record.classes else _EMBED)
    )


def _made(known: About) -> str:
    facts = dataclasses.asdict(known)
    scores = "\n".join(f"- {what}: {value}" for what, value in facts["scores"].items())
    commands = "\n".join(f"    {command}" for command in facts["commands"])
    return f"## How it was made\n\n{known.made}\n\nData: {'; '.join(known.data)}\n\n{commands}\n\n{scores}"
