"""Label-free pretraining: targets against loops over pixels, the cache against the teacher itself, a run to its end."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focusvit.data.batch import Batch
from focusvit.distill.cache import FeatureCache
from focusvit.distill.config import DistillConfig
from focusvit.distill.features import FeatureTargets, Student, Targets, feature_losses
from focusvit.distill.teacher import FeatureTeacher, teacher_width
from focusvit.model.model import FocusViT
from focusvit.predict.predictor import Predictor
from focusvit.recipes.small import debug, finetune
from focusvit.runs.checkpoint import load_checkpoint
from focusvit.train.config import TrainConfig
from focusvit.train.loop import train
from focusvit.train.optim import OptimConfig
from pipeline.errors import UsageError
from testkit.hosts import hugging_face
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, run_with_stops, small, values_of

GRID, WIDTH = (4, 4), 6


class Counting:
    """A teacher whose features are known: each patch's mean colour, twice; the class token is that of the image."""

    grid, width = GRID, WIDTH

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        patches = torch.nn.functional.adaptive_avg_pool2d(images.float() / 64, GRID).flatten(2).transpose(1, 2)
        patches = torch.cat([patches, patches**2], 2)
        return torch.cat([patches.amax(1, keepdim=True), patches.mean(1, keepdim=True), patches], 1)


def batch(count: int = 3, seed: int = 0, views: int | None = None) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.arange(16).view(1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2) // 4 % 5
    maps = torch.where(maps == 4, 0, maps).expand(count, -1, -1)
    return Batch(
        images=torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=draw),
        maps=maps.to(torch.uint8).contiguous(), num_tokens=4, class_ids=torch.full((count,), -1),
        sample_ids=torch.arange(count),
        view_ids=None if views is None else torch.arange(count) % views,
    )  # fmt: skip


def targets_of(teacher: Counting, cache: FeatureCache | None = None) -> FeatureTargets:
    found = FeatureTargets(teacher, GRID, regions=True, bf16=False, cache=cache, views=2)
    found.standardise([batch(8, seed=9)], lambda values: values)
    return found


def test_targets_are_standardised_and_a_superpixels_is_the_mean_over_its_pixels() -> None:
    teacher = Counting()
    targets, shown = targets_of(teacher), batch()
    rows, statistics = teacher(shown.images).half().float(), teacher(batch(8, seed=9).images).half().double()
    mean = [statistics[:, 0].mean(0), statistics[:, 2:].mean((0, 1))]
    std = [statistics[:, 0].std(0, correction=0), statistics[:, 2:].flatten(0, 1).std(0, correction=0)]
    found = targets(shown)
    for row in (0, 1):
        assert torch.allclose(found.image[:, row].double(), (rows[:, row] - mean[row]) / std[row], atol=1e-3)
    assert found.regions is not None and shown.maps is not None
    for image in range(3):
        for region in range(4):
            pixels = [(y, x) for y in range(16) for x in range(16) if shown.maps[image, y, x] == region]
            each = torch.stack([rows[image, 2 + y // 4 * 4 + x // 4] for y, x in pixels])
            assert torch.allclose(found.regions[image, region].double(), (each.mean(0) - mean[1]) / std[1], atol=1e-3)


def test_the_loss_is_the_cosine_distance_with_its_share_of_regions() -> None:
    image, regions = torch.randn(2, 2, 3), torch.randn(2, 4, 3)
    wanted = Targets(torch.randn(2, 2, 3), torch.randn(2, 4, 3))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return 1 - (a * b).sum() / (a.norm() * b.norm())

    found = feature_losses(image, regions, wanted, 0.25)
    for i in range(2):
        whole = sum(distance(image[i, j], wanted.image[i, j]) for j in range(2)) / 2
        parts = sum(distance(regions[i, j], wanted.regions[i, j]) for j in range(4)) / 4
        assert torch.allclose(found[i], 0.75 * whole + 0.25 * parts, atol=1e-6)
    assert torch.allclose(feature_losses(image, None, wanted, 0.25)[0], feature_losses(image, None, wanted, 0.9)[0])


def test_repeated_views_are_shown_to_the_teacher_once_and_give_the_same_targets(tmp_path: Path) -> None:
    teacher = Counting()
    kept = targets_of(teacher, FeatureCache(str(tmp_path), "t", 6, (18, WIDTH)))
    shown, before = batch(views=2), teacher.shown
    first, second, plain = kept(shown), kept(shown), targets_of(Counting())(shown)
    assert teacher.shown == before + 3
    for other in (second, plain):
        assert torch.equal(first.image, other.image) and torch.equal(first.regions, other.regions)  # type: ignore[arg-type]
    kept(dataclasses.replace(shown, view_ids=1 - torch.arange(3) % 2))
    assert teacher.shown == before + 6, "another view of a sample is another row"
    kept(dataclasses.replace(shown, view_ids=torch.full((3,), -1)))
    assert teacher.shown == before + 9, "the fixed view of evaluation is not kept"


@pytest.mark.parametrize("damage", ["flip", "zero", "cut"])
def test_a_kept_row_that_is_not_what_was_written_is_computed_again(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(str(tmp_path), "t", 4, (2, 3))
    rows = np.arange(1, 19, dtype=np.float16).reshape(3, 2, 3)
    cache.put(np.array([2, 0, 3]), rows)
    found, known = FeatureCache(str(tmp_path), "t", 4, (2, 3)).find(np.array([0, 1, 2, 3]))
    assert known.tolist() == [True, False, True, True] and np.array_equal(found[[2, 0, 3]], rows)
    data = bytearray((tmp_path / "t.rows").read_bytes())
    size = 2 * 3 * 2
    if damage == "flip":
        data[2 * size + 5] ^= 4
    data[2 * size : 3 * size] = bytes(size) if damage == "zero" else data[2 * size : 3 * size]
    (tmp_path / "t.rows").write_bytes(data[: 2 * size] if damage == "cut" else data)
    known = FeatureCache(str(tmp_path), "t", 4, (2, 3)).find(np.array([0, 1, 2, 3]))[1]
    assert known.tolist() == [True, False, False, damage != "cut"]


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"take [\d.]+ GB and .* free\. Name another disk with --distill.cache-dir"):
        FeatureCache(str(tmp_path), "t", 10**12, (18, WIDTH))
    assert not list(tmp_path.iterdir())


def saved(folder: Path, name: str = "Dinov2Model", config: str = "Dinov2", told: bool = True) -> str:
    torch.manual_seed(3)
    hugging_face(name, config).save_pretrained(folder)
    if told:
        (folder / "preprocessor_config.json").write_text(
            '{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}'
        )
    return str(folder)


@pytest.mark.parametrize(
    ("name", "config", "first"),
    [("Dinov2Model", "Dinov2", 1), ("ViTModel", "ViT", 1), ("CLIPVisionModel", "CLIPVision", 1),
     ("SiglipVisionModel", "SiglipVision", 0), ("DINOv3ViTModel", "DINOv3ViT", 1)],
)  # fmt: skip
def test_the_teachers_rows_are_those_of_its_library(tmp_path: Path, name: str, config: str, first: int) -> None:
    import transformers

    folder = saved(tmp_path, name, config)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    found = FeatureTeacher(folder, 32, torch.device("cpu"))(images)
    pixels = (images / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.no_grad():
        out = getattr(transformers, name).from_pretrained(folder).eval()(pixels)
    rows = out.last_hidden_state
    image = out.pooler_output if name in ("CLIPVisionModel", "SiglipVisionModel") else rows[:, 0]
    assert rows.shape[1] == 16 + first and teacher_width(folder) == 32
    assert torch.allclose(found[:, 2:], rows[:, first:], atol=1e-5)
    assert torch.allclose(found[:, 1], rows[:, first:].mean(1), atol=1e-5)
    assert torch.allclose(found[:, 0], image, atol=1e-5)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_record(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def of_another_kind(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "model_type": "no-such-thing"}))


@pytest.mark.parametrize(
    ("spoil", "image_px", "said"),
    [
        (without_config, 32, "nor a folder of Hugging Face or timm"),
        (without_weights, 32, "model.safetensors"),
        (without_record, 32, "does not say how its pixels are normalised"),
        (of_another_kind, 32, "cannot be taken as a host"),
        (lambda folder: None, 36, "must be a multiple of the host's patches, 8"),
    ],
)
def test_a_folder_that_cannot_teach_is_refused_in_words(
    tmp_path: Path, spoil: Callable[[Path], None], image_px: int, said: str
) -> None:
    folder = saved(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UsageError, match=said):
        FeatureTeacher(folder, image_px, torch.device("cpu"))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"), labels={0: -1, 1: -1, 2: -1, 3: -1})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("host"))


def label_free(host: str, **changes: object) -> TrainConfig:
    model = dataclasses.replace(debug().model, trunk="full", image_px=32)
    data = dataclasses.replace(debug().data, views=2, map_px=32)
    return small(model=model, data=data, distill=DistillConfig(target="features", teacher=host), **changes)


def test_images_without_labels_train_resume_and_fine_tune(unlabelled: str, host: str, tmp_path: Path) -> None:
    """The whole road: bit-equal after kills, with or without kept features; no classes; a new head afterwards."""
    config = label_free(host)
    run_with_stops(config, unlabelled, str(tmp_path / "whole"), 0)
    run_with_stops(config, unlabelled, str(tmp_path / "parts"), 2)
    assert values_of(tmp_path / "parts") == values_of(tmp_path / "whole")
    left, right = final_tensors(tmp_path / "whole"), final_tensors(tmp_path / "parts")
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
    last = max(values_of(tmp_path / "whole").items())[1]
    assert set(last) >= {"train/loss", "val/cosine", "val/loss"} and "train/top1" not in last

    record = load_checkpoint(str(tmp_path / "whole"))
    assert record.classes == () and record.model["num_classes"] == 64
    with pytest.raises(UsageError, match="pretrained without labels"):
        Predictor.of(record.uri)
    labelled = make_dataset(tmp_path / "labelled")
    tuned = dataclasses.replace(finetune(record), epochs=1, global_batch=25)
    assert tuned.data.views == 0 and not tuned.label_free
    assert "val/top1" in train(tuned, data_uri=labelled, run_dir=str(tmp_path / "tuned"))


def test_a_student_comes_closer_to_its_teacher(unlabelled: str, host: str, tmp_path: Path) -> None:
    optim = OptimConfig(lr=3e-3, warmup_epochs=0.2)
    config = label_free(host, epochs=16, optim=optim, eval_every_epochs=8, checkpoint_every_epochs=8)
    train(config, data_uri=unlabelled, run_dir=str(tmp_path))
    cosines = [v["val/cosine"] for v in values_of(tmp_path).values() if "val/cosine" in v]
    assert len(cosines) == 2 and 0.1 < cosines[0] < cosines[1]


def test_a_training_without_labels_needs_a_teacher_and_regions_at_its_end(unlabelled: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Name one: --teacher DIR"):
        train(label_free(None), data_uri=unlabelled, run_dir=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"set distill.regions to 0"):
        dataclasses.replace(label_free("x"), model=debug().model)


def test_region_outputs_of_a_mean_average_to_that_of_the_image() -> None:
    """The head is linear and the mean weighs by area: what regions answer adds up to the image's answer."""
    torch.manual_seed(0)
    config = dataclasses.replace(debug().model, trunk="full", num_classes=64, readout="mean", image_px=16, tokens=4)
    model = Student(FocusViT(config).eval(), with_regions=True)
    shown = batch()
    assert shown.maps is not None
    image, regions = model(shown.images, shown.maps, 4)
    assert regions is not None
    areas = torch.nn.functional.one_hot(shown.maps.long(), 4).flatten(1, 2).float().mean(1)
    assert torch.allclose(image[:, 1], torch.einsum("bk,bkd->bd", areas, regions), atol=1e-5)
