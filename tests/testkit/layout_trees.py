"""Layouts of folders, as the names in them and what they must become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pipeline.sources.detect import look
from testkit.image_sources import jpeg


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A tree and its meaning."""

    title: str
    tree: str  # paths, apart by blanks; .jpg and .png files are images unless `contents` says otherwise
    reads: Mapping[str, str]  # by split: `id=class`, `id~label map` or `id` of each image; or `refused: words of it`
    contents: Mapping[str, str | bytes | Callable[[], bytes]] = field(default_factory=dict)
    shown: str = ""  # in the table in place of `tree`

    def write(self, root: Path) -> Path:
        for number, name in enumerate(self.tree.split()):
            content = self.contents.get(name, b"")
            data = content() if callable(content) else content.encode() if isinstance(content, str) else content
            if name not in self.contents and name.endswith((".jpg", ".JPEG", ".png")):
                data = jpeg(number) if "j" in name.rpartition(".")[2].lower() else _label_map(number)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root


def _label_map(number: int) -> bytes:
    return cv2.imencode(".png", np.full((40, 56), number % 5, np.uint8))[1].tobytes()


def read_as_text(root: Path, split: str) -> str:
    """What is there, in the notation of `Layout.reads`. Raises as `look` and the source do."""
    found = [
        row.source + (f"={row.class_name}" if row.class_name else "") + (f"~{row.label_file}" if row.label_file else "")
        for row in look(str(root), split).source.images()
    ]
    return " ".join(sorted(found))


CLASSES = [
    Layout(title="class folders", tree="a/1.jpg b/2.jpg", reads={"train": "a/1.jpg=a b/2.jpg=b"}),
    Layout(
        title="class folders below split folders, with any alias",
        tree="Training/a/1.jpg Training/b/2.jpg Testing/a/3.jpg dev/b/4.jpg",
        reads={"train": "a/1.jpg=a b/2.jpg=b", "test": "a/3.jpg=a", "val": "b/4.jpg=b"},
    ),
    Layout(
        title="wrapped in one folder, or in several",
        tree="README.md mydata/archive/train/a/1.jpg mydata/archive/valid/a/2.jpg",
        reads={"train": "a/1.jpg=a", "val": "a/2.jpg=a"},
    ),
    Layout(
        title="a split folder in a split folder of the same name",
        tree="training_set/training_set/a/1.jpg test_set/test_set/a/2.jpg",
        reads={"train": "a/1.jpg=a", "test": "a/2.jpg=a"},
    ),
    Layout(
        title="class folders below images/",
        tree="train/images/a/1.jpg train/images/b/2.jpg val/images/a/3.jpg",
        reads={"train": "a/1.jpg=a b/2.jpg=b", "val": "a/3.jpg=a"},
    ),
    Layout(
        title="split folders below images/",
        tree="images/train/a/1.jpg images/val/a/2.jpg",
        reads={"train": "a/1.jpg=a", "val": "a/2.jpg=a"},
    ),
    Layout(
        title="Tiny ImageNet, extracted",
        tree="wnids.txt train/n1/images/1.jpg train/n1/n1_boxes.txt val/images/2.jpg val/val_annotations.txt "
        "test/images/3.jpg",
        contents={"wnids.txt": "n1\n", "val/val_annotations.txt": "2.jpg\tn1\t0\t0\t9\t9\n"},
        reads={"train": "n1/images/1.jpg=n1", "val": "images/2.jpg=n1", "test": "3.jpg"},
    ),
    Layout(
        title="more beside the splits",
        tree="train/a/1.jpg val/a/2.jpg masks/train/a/1.png notes.txt",
        reads={"train": "a/1.jpg=a", "val": "a/2.jpg=a", "test": "refused: no split 'test'; it holds train, val"},
    ),
    Layout(
        title="a class called train",
        tree="bus/1.jpg Train/2.jpg",
        reads={"train": "Train/2.jpg=Train bus/1.jpg=bus"},
    ),
    Layout(
        title="folders whose names differ in the split alone",
        tree="seg_train/seg_train/a/1.jpg seg_test/seg_test/a/2.jpg seg_pred/seg_pred/3.jpg",
        reads={"train": "a/1.jpg=a", "test": "a/2.jpg=a"},
    ),
    Layout(
        title="splits and classes in one name",
        tree="trainA/1.jpg trainB/2.jpg testA/3.jpg testB/4.jpg",
        reads={"train": "refused: testA, testB, trainA, trainB in"},
    ),
    Layout(
        title="splits inside class folders",
        tree="bottle/train/good/1.jpg bottle/test/bad/2.jpg cable/train/good/3.jpg cable/test/bad/4.jpg",
        reads={"train": "refused: the folder bottle in"},
    ),
    Layout(
        title="a class with train in its name",
        tree="bullet_train/1.jpg car/2.jpg trainer/3.jpg",
        reads={"train": "bullet_train/1.jpg=bullet_train car/2.jpg=car trainer/3.jpg=trainer"},
    ),
    Layout(title="one class", tree="a/1.jpg a/2.jpg", reads={"train": "a/1.jpg=a a/2.jpg=a"}),
    Layout(
        title="images without classes, below split folders",
        tree="train/cat.0.jpg train/dog.1.jpg test/0.jpg",
        reads={"train": "cat.0.jpg dog.1.jpg", "test": "0.jpg", "val": "refused: no split 'val'; it holds test, train"},
    ),
    Layout(title="images without classes", tree="1.jpg 2.jpg", reads={"train": "1.jpg 2.jpg"}),
    Layout(
        title="COCO",
        tree="train2017/1.jpg val2017/2.jpg annotations/instances_val2017.json",
        reads={"train": "1.jpg", "val": "2.jpg"},
    ),
    Layout(
        title="what systems and focusvit leave behind",
        tree="a/1.jpg b/2.jpg lost+found/3.jpg a/@eaDir/4.jpg .cache/5.jpg shards/.focusvit/plan-train.parquet "
        "shards/train-000000.tar",
        reads={"train": "a/1.jpg=a b/2.jpg=b"},
    ),
    Layout(
        title="images beside class folders, and files of unknown ending",
        tree="a/1.jpg b/2.jpg 3.jpg b/raw.heic",
        reads={"train": "a/1.jpg=a b/2.jpg=b"},
    ),
    Layout(
        title="a class folder without an image",
        tree="train/a/1.jpg train/b/x.txt val/a/2.jpg val/b/x.txt",
        reads={"train": "refused: 1 of 2 class folders", "val": "a/2.jpg=a"},
    ),
    Layout(
        title="a dataset.json of somebody else",
        tree="dataset.json 00000/1.jpg 00001/2.jpg",
        contents={"dataset.json": '{"labels": null}'},
        reads={"train": "00000/1.jpg=00000 00001/2.jpg=00001"},
    ),
    Layout(title="no image", tree="a/x.txt b/y.heic", reads={"train": "refused: holds no image"}),
    Layout(
        title="two splits of equal right",
        tree="train2014/1.jpg train2017/2.jpg",
        reads={"train": "refused: 2 splits that could be 'train'", "train2017": "2.jpg"},
    ),
]
MASKS = [
    Layout(
        title="images/ and labels/ (masks/, annotations/, ...) below split folders",
        tree="train/images/1.jpg train/labels/1.png val/images/2.jpg val/labels/2.png",
        reads={"train": "images/1.jpg~labels/1.png", "val": "images/2.jpg~labels/2.png"},
    ),
    Layout(
        title="CamVid: folders of images and annotations side by side",
        tree="train/1.jpg trainannot/1.png val/2.jpg valannot/2.png test/3.jpg testannot/3.png",
        reads={"train": "train/1.jpg~trainannot/1.png", "test": "test/3.jpg~testannot/3.png"},
    ),
    Layout(
        title="the same, other names",
        tree="train/1.jpg train/2.jpg train_masks/1_mask.png train_masks/2_mask.png",
        reads={"train": "train/1.jpg~train_masks/1_mask.png train/2.jpg~train_masks/2_mask.png"},
    ),
    Layout(
        title="VOC",
        tree="VOCdevkit/VOC2012/JPEGImages/1.jpg VOCdevkit/VOC2012/JPEGImages/2.jpg VOCdevkit/VOC2012/JPEGImages/3.jpg "
        "VOCdevkit/VOC2012/SegmentationClass/1.png VOCdevkit/VOC2012/SegmentationClass/2.png "
        "VOCdevkit/VOC2012/SegmentationObject/1.png VOCdevkit/VOC2012/Annotations/1.xml "
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
        contents={
            "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": "1\n",
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": "2\n",
        },
        shown="VOCdevkit/VOC2012/ with `JPEGImages/1.jpg`, `2.jpg`, `3.jpg`, `SegmentationClass/1.png`, `2.png`, "
        "`SegmentationObject/`, `Annotations/`, `ImageSets/Segmentation/train.txt`, `val.txt`",
        reads={"train": "JPEGImages/1.jpg~SegmentationClass/1.png", "val": "JPEGImages/2.jpg~SegmentationClass/2.png"},
    ),
    Layout(
        title="ADE20k",
        tree="images/training/1.jpg images/validation/2.jpg annotations/training/1.png annotations/validation/2.png "
        "objectInfo150.txt",
        reads={
            "train": "images/training/1.jpg~annotations/training/1.png",
            "val": "images/validation/2.jpg~annotations/validation/2.png",
        },
    ),
    Layout(
        title="Cityscapes",
        tree="leftImg8bit/train/aachen/a_1_leftImg8bit.png leftImg8bit/val/bonn/b_1_leftImg8bit.png "
        "gtFine/train/aachen/a_1_gtFine_labelIds.png gtFine/train/aachen/a_1_gtFine_color.png "
        "gtFine/train/aachen/a_1_gtFine_polygons.json gtFine/val/bonn/b_1_gtFine_labelIds.png "
        "gtFine/val/bonn/b_1_gtFine_labelTrainIds.png",
        reads={
            "train": "leftImg8bit/train/aachen/a_1_leftImg8bit.png~gtFine/train/aachen/a_1_gtFine_labelIds.png",
            "val": "leftImg8bit/val/bonn/b_1_leftImg8bit.png~gtFine/val/bonn/b_1_gtFine_labelTrainIds.png",
        },
    ),
    Layout(
        title="Oxford-IIIT Pets",
        tree="images/Bengal_1.jpg images/Bengal_2.jpg images/Bengal_3.jpg images/Bengal_3.mat "
        "annotations/list.txt annotations/trainval.txt annotations/test.txt annotations/trimaps/Bengal_1.png "
        "annotations/trimaps/Bengal_2.png annotations/trimaps/._Bengal_1.png annotations/xmls/Bengal_1.xml",
        contents={
            "annotations/list.txt": "#Image CLASS-ID\nBengal_1 6 1 2\nBengal_2 6 1 2\n",
            "annotations/trainval.txt": "Bengal_1 6 1 2\n",
            "annotations/test.txt": "Bengal_2 6 1 2\n",
        },
        reads={
            "train": "images/Bengal_1.jpg~annotations/trimaps/Bengal_1.png",
            "test": "images/Bengal_2.jpg~annotations/trimaps/Bengal_2.png",
        },
    ),
    Layout(
        title="images and label maps in two folders, no splits",
        tree="images/image_1.jpg images/image_2.jpg masks/mask_1.png masks/mask_2.png",
        reads={"train": "images/image_1.jpg~masks/mask_1.png images/image_2.jpg~masks/mask_2.png"},
    ),
    Layout(
        title="maps that do not pair up",
        tree="images/1.jpg images/2.jpg labels/1.png labels/3.png",
        reads={"train": "refused: images without a map: 2; maps without an image: 3"},
    ),
    Layout(
        title="YOLO: boxes, no label maps",
        tree="images/train/1.jpg images/val/2.jpg labels/train/1.txt labels/val/2.txt",
        reads={"train": "refused: holds no label map"},
    ),
    Layout(
        title="a list that names what is not there",
        tree="images/1.jpg masks/1.png train.txt",
        contents={"train.txt": "images/1.jpg\nimages/7.jpg\n"},
        reads={"train": "refused: 1 of the 2 names in"},
    ),
]
