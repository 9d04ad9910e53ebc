"""`focusvit look`: what a checkpoint is given of an image and where it looks, as pictures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from focusvit.choices import pick_device, token_budgets
from focusvit.data.augment import View
from focusvit.model.model import FocusViT
from focusvit.options import BUDGETS, LookConfig
from focusvit.runs.checkpoint import Checkpoint, load_model
from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.image.image import BadImage
from pipeline.io import storage

from . import attention as looking
from .compatible import check_tokens
from .pictures import density_overlay, enlarge, labelled_sheet, outlined, save_png, with_regions
from .places import image_places
from .predictor import model_tensors, view_config

_MAX_LATENTS = 35  # cells of one sheet; more latents are shown evenly spread
_PALEST = 3.0
_NOTE = "colour: attention per pixel, as a multiple of an even look over the image"


def main(argv: list[str]) -> int:
    config = parse(LookConfig, argv, prog="focusvit look")
    places = image_places(config.images)
    model, record = load_model(config.checkpoint, pick_device(config.device))
    if not isinstance(model, FocusViT):
        raise UsageError(f"{record.uri} is a host of another library; `focusvit look` shows what FocusViT looks at.")
    eye = Eye(model, record)
    out, bad = storage.resolve(config.out), 0
    tokens = token_budgets(config.tokens, eye.model.config.tokens)[0]
    if eye.model.config.needs_maps:
        for budget in config.token_budgets:
            check_tokens(eye.record, budget)
    sys.stdout.write(f"look at {len(places)} images with {eye.record.uri}, {eye.words(tokens)}\n")
    for number, place in enumerate(tqdm(places, desc="look", unit="image", disable=None)):
        stem = storage.name_of(place.uri).rsplit(".", 1)[0]
        try:
            data = storage.read_bytes(place.uri)
            for kind, picture in eye.pictures(data, stem, tokens, config.token_budgets):
                save_png(storage.join(out, f"{number:03d}-{stem}-{kind}.png"), picture)
        except storage.StoreError:  # of the pictures' folder: the next image would fare no better
            raise
        except (BadImage, OSError) as error:
            bad += 1
            tqdm.write(f"bad image: {place.uri} {error}", file=sys.stderr)
    sys.stdout.write(f"{len(places) - bad} images shown, {bad} could not be read; pictures in {out}\n")
    return 1 if bad else 0


@dataclass(frozen=True)
class Eye:
    """A model and what its checkpoint says of images and classes."""

    model: FocusViT
    record: Checkpoint

    def words(self, tokens: int | None) -> str:
        return f"{tokens} {self.model.config.partition} tokens" if tokens else "plain patches"

    def view(self, data: bytes, tokens: int | None) -> View:
        """Raises BadImage."""
        return view_config(self.record, tokens if self.model.config.needs_maps else None).view(data)

    @torch.no_grad()
    def seen(self, view: View, tokens: int | None) -> dict[str, Any]:
        """`forward_intermediates` of one view."""
        images, maps = model_tensors([view], self.model.head.weight.device)
        return self.model.eval().forward_intermediates(images, maps, tokens)

    def answer(self, seen: dict[str, Any]) -> str:
        if not self.record.classes:
            return "pretrained without labels"
        shares = seen["logits"][0].float().softmax(0)
        best = int(shares.argmax())
        return f"{self.record.classes[best]} {float(shares[best]):.0%}"

    def pictures(
        self, data: bytes, title: str, tokens: int | None, budgets: Sequence[int]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """(kind, uint8 RGB): budgets (models that take maps), attention, latents and reads (models that have them)."""
        view = self.view(data, tokens)
        seen = self.seen(view, tokens)
        if self.model.config.needs_maps:
            cells = [("what the model is given", view.image)]
            cells += [(f"{k} superpixels: {answer}", cell) for k in budgets for cell, answer in [self.budget(data, k)]]
            yield "budgets", labelled_sheet(cells, f"{title}: one model, {len(budgets)} token budgets", columns=6)
        what = "the class token" if self.model.num_class_tokens else "all rows in the mean"
        note = f"attention of {what}; {_NOTE}"
        head = f"{title}: {self.answer(seen)}, {self.words(tokens)}"
        yield "attention", labelled_sheet(self.attention(view, seen), head, columns=7, note=note)
        reads = looking.last_read(seen)
        for kind, text, shares in (
            ("latents", "which regions each latent is pooled from", looking.latent_shares(seen)),
            (
                "reads",
                "which regions each latent reads in the last cross-attention",
                None if reads is None else reads[0, self.model.num_class_tokens :],
            ),
        ):
            if shares is not None:
                cells = self.latents(view, seen, shares)
                yield kind, labelled_sheet(cells, f"{head}, {len(shares)} latents", columns=9, note=f"{text}; {_NOTE}")

    def budget(self, data: bytes, tokens: int) -> tuple[np.ndarray, str]:
        """Borders above mean colours for one budget, and the answer that the model gives with it."""
        view = self.view(data, tokens)
        assert view.map is not None
        return with_regions(view.image, view.map), self.answer(self.seen(view, tokens))

    def attention(self, view: View, seen: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
        """(name and peak, picture) of the input, of every block and of the rollout through all of them."""
        cells = [self._input(view)]
        cells += [self._painted(view, seen, layer) for layer in looking.layers(self.model, seen)]
        shares = looking.rollout(self.model, seen)
        if shares is not None:
            cells.append(self._painted(view, seen, looking.Layer(name="rollout", shares=shares, over="patches")))
        return cells

    def latents(self, view: View, seen: dict[str, Any], shares: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """(name and peak, picture) of the input and of every row of `shares` (M, K), which are made to sum to 1."""
        over: looking.Place = "regions" if "overlap" in seen else "patches"
        shown = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), _MAX_LATENTS)).round().astype(int))
        return [self._input(view)] + [
            self._painted(
                view, seen, looking.Layer(name=f"latent {i + 1}", shares=shares[i] / shares[i].sum(), over=over)
            )
            for i in shown
        ]

    def _input(self, view: View) -> tuple[str, np.ndarray]:
        if view.map is None:
            return "input", enlarge(view.image, self._patches())[0]
        return "input", outlined(view.image, view.map)

    def _painted(self, view: View, seen: dict[str, Any], layer: looking.Layer) -> tuple[str, np.ndarray]:
        """Shares as density: 1 is an even look at all pixels."""
        shares, regions = layer.shares, view.map if layer.over == "regions" else self._patches()
        if regions is None:  # cells of a control have no map: their shares go to their patches
            overlap = seen["overlap"][0].double().cpu().numpy()
            shares, regions = shares @ (overlap / overlap.sum(1, keepdims=True).clip(1e-12)), self._patches()
        area = np.bincount(regions.ravel(), minlength=len(shares)) / regions.size
        density = shares / area.clip(1e-9)
        # 98 % of the pixels, so that a sliver of a region does not set the scale; and an even look stays pale.
        top = max(float(np.quantile(density[regions], 0.98)), _PALEST)
        return f"{layer.name} (yellow: {top:.1f}x)", density_overlay(view.image, regions, density, top)

    def _patches(self) -> np.ndarray:
        rows, columns = self.model.config.grid
        return np.arange(rows * columns).reshape(rows, columns)


def slider_frames(
    eye: Eye, images: Sequence[bytes], budgets: Sequence[int] = BUDGETS
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(series, step, picture) of a few encoded images side by side, for a viewer with a slider: `look_token_budget` by
    the number of tokens (models that take maps), and `look_attention` by the block, rollout last.
    """
    tokens = eye.model.config.tokens
    if eye.model.config.needs_maps:
        for budget in budgets:
            frames = [eye.budget(data, budget) for data in images]
            cells = [(answer, picture) for picture, answer in frames]
            yield "look_token_budget", budget, labelled_sheet(cells, f"{budget} superpixels", columns=len(cells))
    views = [eye.view(data, tokens) for data in images]
    layers = list(zip(*(eye.attention(view, eye.seen(view, tokens)) for view in views)))
    for number, cells_of_layer in enumerate(layers):
        title = cells_of_layer[0][0].split(" (")[0]
        yield "look_attention", number, labelled_sheet(list(cells_of_layer), title, columns=len(images), note=_NOTE)
