"""The table of tasks that papers report: what each is, where it comes from, and what of it has been run here.

`verified here` = preprocessed and measured with this code on real data; `by documentation` = class counts, splits and
metric are from the protocols' papers and code, and the source must be checked when it is first used.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from pipeline.io import storage

from .task import Metric, Task

Group = Literal["kornblith", "vtab-natural", "vtab-specialized", "vtab-structured", "imagenet", "dense", "other"]
VERIFIED, DOCUMENTED = "verified here", "by documentation"


@dataclass(frozen=True)
class KnownTask:
    """One row. `source` is a Hugging Face data set (WebDataset tars of clip-benchmark unless it says otherwise)."""

    name: str
    group: Group
    source: str
    num_classes: int
    num_train: int
    num_test: int
    metric: Metric = "top1"
    status: str = DOCUMENTED
    classes: tuple[str, ...] = ()
    ignore: tuple[int, ...] = ()
    suites: tuple[str, ...] = ()
    """Suites that contain it beside the one of its group."""


_row = KnownTask
_WDS = "clip-benchmark/wds_"
_VTAB = "clip-benchmark/wds_vtab-"
_CAMVID = "sky building pole road pavement tree sign-symbol fence car pedestrian bicyclist".split()

KNOWN_TASKS: tuple[KnownTask, ...] = (
    # Kornblith et al. 2019, train / test as used with their linear protocol (train holds the validation part).
    _row("food101", "kornblith", "ethz/food101 (parquet)", 101, 75_750, 25_250),
    _row("cifar10", "kornblith", "uoft-cs/cifar10 (parquet)", 10, 50_000, 10_000, status=VERIFIED, suites=("quick",)),
    _row("cifar100", "kornblith", "uoft-cs/cifar100 (parquet)", 100, 50_000, 10_000, suites=("vtab1k",)),
    _row("birdsnap", "kornblith", "links rotted; most suites leave it out", 500, 47_386, 2_443),
    _row("sun397", "kornblith", _WDS + "sun397", 397, 19_850, 19_850, suites=("vtab1k",)),
    _row("cars", "kornblith", _WDS + "cars", 196, 8_144, 8_041),
    _row("aircraft", "kornblith", _WDS + "fgvc_aircraft", 100, 6_667, 3_333, metric="mean_per_class"),
    _row("voc2007", "kornblith", _WDS + "voc2007_multilabel", 20, 5_011, 4_952, metric="map"),
    _row("dtd", "kornblith", _VTAB + "dtd", 47, 3_760, 1_880, suites=("vtab1k",)),
    _row("pets", "kornblith", _VTAB + "pets", 37, 3_680, 3_669, metric="mean_per_class", suites=("vtab1k",)),
    _row("caltech101", "kornblith", _VTAB + "caltech101", 102, 3_060, 6_084, metric="mean_per_class",
         suites=("vtab1k",)),
    _row("flowers", "kornblith", _VTAB + "flowers", 102, 2_040, 6_149, metric="mean_per_class", suites=("vtab1k",)),
    # VTAB-1k: 800 training and 200 validation images, top-1 on the whole test set. Those above complete the 19.
    _row("svhn", "vtab-natural", _VTAB + "svhn", 10, 1_000, 26_032),
    _row("pcam", "vtab-specialized", _VTAB + "pcam", 2, 1_000, 32_768),
    _row("eurosat", "vtab-specialized", _VTAB + "eurosat", 10, 1_000, 5_400),
    _row("resisc45", "vtab-specialized", _VTAB + "resisc45", 45, 1_000, 6_300),
    _row("retinopathy", "vtab-specialized", _VTAB + "diabetic_retinopathy", 5, 1_000, 42_670),
    _row("clevr-count", "vtab-structured", _VTAB + "clevr_count_all", 8, 1_000, 15_000),
    _row("clevr-distance", "vtab-structured", _VTAB + "clevr_closest_object_distance", 6, 1_000, 15_000),
    _row("dmlab", "vtab-structured", _VTAB + "dmlab", 6, 1_000, 22_735),
    _row("kitti-distance", "vtab-structured", _VTAB + "kitti_closest_vehicle_distance", 4, 1_000, 711),
    _row("dsprites-location", "vtab-structured", _VTAB + "dsprites_label_x_position", 16, 1_000, 73_728),
    _row("dsprites-orientation", "vtab-structured", _VTAB + "dsprites_label_orientation", 16, 1_000, 73_728),
    _row("smallnorb-azimuth", "vtab-structured", _VTAB + "smallnorb_label_azimuth", 18, 1_000, 12_150),
    _row("smallnorb-elevation", "vtab-structured", _VTAB + "smallnorb_label_elevation", 9, 1_000, 12_150),
    # ImageNet-1k and its robustness sets: `focusvit evaluate` scores a part of the classes among themselves.
    _row("imagenet1k", "imagenet", "ILSVRC2012 (tars or folder)", 1000, 1_281_167, 50_000),
    _row("imagenetv2", "imagenet", _WDS + "imagenetv2", 1000, 0, 10_000),
    _row("imagenet-a", "imagenet", _WDS + "imagenet-a", 200, 0, 7_500),
    _row("imagenet-r", "imagenet", _WDS + "imagenet-r", 200, 0, 30_000),
    _row("imagenet-sketch", "imagenet", _WDS + "imagenet_sketch", 1000, 0, 50_889),
    _row("imagenet-real", "imagenet", "ILSVRC2012 val with the ReaL labels (lists of classes)", 1000, 0, 50_000),
    _row("imagenet-c", "imagenet", "ImageNet-C, one folder per corruption and severity", 1000, 0, 50_000),
    # Dense: images with a label map each.
    _row("voc2012", "dense", "VOCdevkit, augmented training list", 21, 10_582, 1_449, metric="miou"),
    _row("ade20k", "dense", "SceneParse150 (label 0 is 'other')", 150, 20_210, 2_000, metric="miou"),
    _row("cityscapes", "dense", "leftImg8bit and gtFine (train ids)", 19, 2_975, 500, metric="miou"),
    _row("pets-trimap", "dense", "Oxford-IIIT Pets, annotations/trimaps", 3, 3_680, 3_669, metric="miou"),
    _row(
        "camvid", "dense", "images and label maps with the same stem", 11, 184, 101, metric="miou", status=VERIFIED,
        classes=tuple(_CAMVID), ignore=(11,),
    ),
    _row("tiny-imagenet-40", "other", "Tiny ImageNet layout, 40 classes", 40, 20_000, 2_000, status=VERIFIED,
         suites=("quick",)),
    _row("digits", "other", "scikit-learn's handwritten digits (embedded)", 10, 1_442, 355, status=VERIFIED,
         suites=("quick",)),
)  # fmt: skip


def known(name: str) -> KnownTask | None:
    """The row with this name."""
    return next((task for task in KNOWN_TASKS if task.name == name), None)


def parse_task(text: str) -> Task:
    """'name=DIR' or 'DIR' (then the folder's name is the task's). Raises UsageError."""
    name, given, place = text.partition("=")
    uri = storage.resolve(place if given else text)
    try:
        return task_of(name if given else storage.name_of(uri), uri)
    except ValueError as error:
        raise UsageError(f"--task {text}: {error}. Write --task name=DIR.") from None


def with_labels(task: Task, ignored: str, mapped: str) -> Task:
    """The task with the label values that --ignore-labels leaves out and --map-labels reads as others. UsageError."""
    if ignored and not all(part.strip().isdecimal() for part in ignored.split(",")):
        raise UsageError(f"--ignore-labels is '{ignored}': write label values with commas, such as 0,255.")
    pairs = [[side.strip() for side in part.split(":")] for part in mapped.split(",")] if mapped else []
    if not all(len(pair) == 2 and all(side.isdecimal() and int(side) < 256 for side in pair) for pair in pairs):
        raise UsageError(f"--map-labels is '{mapped}': write values of 0 to 255 as FROM:TO with commas, such as 255:1.")
    ignore = tuple(int(part) for part in ignored.split(",")) if ignored else task.ignore
    return dataclasses.replace(task, ignore=ignore, map_labels=tuple((int(a), int(b)) for a, b in pairs))


def task_of(name: str, uri: str) -> Task:
    """A task at a place; the name of a known task brings its metric, class names and ignored labels. ValueError."""
    row = known(name)
    if row is None:
        return Task(name=name, uri=uri)
    return Task(name=name, uri=uri, metric=row.metric, classes=row.classes, ignore=row.ignore)


def group_of(name: str) -> str:
    """The VTAB group of a task, for group means; empty for others."""
    row = known(name)
    if row is None:
        return ""
    if row.group.startswith("vtab-"):
        return row.group.removeprefix("vtab-")
    return "natural" if "vtab1k" in row.suites else ""
