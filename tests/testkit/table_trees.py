"""Layouts that keep their labels in members of tars, in columns of tables or in lists."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from testkit.image_sources import jpeg, linked_tar, png, tar_bytes
from testkit.layout_trees import Layout

J, P = jpeg(0), png(0)


def _tar(**members: str | bytes) -> Callable[[], bytes]:
    """Members by name, where `_` stands for a dot and `__` for a slash."""
    named = {name.replace("__", "/").replace("_", "."): data for name, data in members.items()}
    return lambda: tar_bytes({name: data.encode() if isinstance(data, str) else data for name, data in named.items()})


def _parquet(classes: dict[str, list[str]] | None = None, **columns: list[Any]) -> Callable[[], bytes]:
    """A table; `classes` names the columns that are features of type ClassLabel, with their names."""

    def write() -> bytes:
        features = {name: {"_type": "ClassLabel", "names": names} for name, names in (classes or {}).items()}
        table = pa.table(columns).replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})} if classes else None
        )
        file = io.BytesIO()
        pq.write_table(table, file)
        return file.getvalue()

    return write


ARCHIVES = [
    Layout(
        title="WebDataset tars, one of them empty",
        tree="train-0.tar train-1.tar val-0.tar",
        contents={
            "train-0.tar": _tar(),
            "train-1.tar": _tar(a_cls="1", a_jpg=J, b_cls="0", b_jpg=P),
            "val-0.tar": _tar(c_json='{"label": 1}', c_png=P),
        },
        shown="`train-0.tar` (empty), `train-1.tar` with `a.cls`, `a.jpg`, ...; `val-0.tar` with `c.json`, `c.png`",
        reads={"train": "train-1/a=1 train-1/b=0", "val": "val-0/c=1"},
    ),
    Layout(
        title="a mask beside each image",
        tree="x.tar",
        contents={"x.tar": _tar(s_cls="3", s_mask_png=P, s_depth_png=P, s_png=P)},
        shown="`x.tar` with `s.cls`, `s.mask.png`, `s.depth.png`, `s.png`",
        reads={"train": "x/s=3"},
    ),
    Layout(
        title="several images a sample, none with a bare ending",
        tree="x.tar",
        contents={"x.tar": _tar(s_cls="3", s_left_jpg=J, s_right_jpg=J)},
        shown="`x.tar` with `s.cls`, `s.left.jpg`, `s.right.jpg`",
        reads={"train": "refused: --image-member right.jpg"},
    ),
    Layout(
        title="stems with dots",
        tree="x.tar",
        contents={"x.tar": _tar(photo_001_cls="0", photo_001_jpg=J, photo_002_cls="1", photo_002_jpg=J)},
        shown="`x.tar` with `photo.001.cls`, `photo.001.jpg`, `photo.002.cls`, `photo.002.jpg`",
        reads={"train": "x/photo.001=0 x/photo.002=1"},
    ),
    Layout(
        title="labels after all images, numbers with gaps, no label as -1",
        tree="x.tar",
        contents={"x.tar": _tar(a_jpg=J, b_jpg=J, c_jpg=J, a_cls="10000", b_cls="9999", c_cls="-1")},
        shown="`x.tar` with `a.jpg`, `b.jpg`, `c.jpg`, `a.cls` 10000, `b.cls` 9999, `c.cls` -1",
        reads={"train": "x/a=10000 x/b=9999 x/c"},
    ),
    Layout(
        title="a class that is listed twice",
        tree="classnames.txt x.tar",
        contents={"classnames.txt": "crane\ndog\ncrane\n", "x.tar": _tar(a_jpg=J, a_cls="0", b_jpg=J, b_cls="2")},
        shown="`classnames.txt` with crane, dog, crane; `x.tar` with `a.jpg`, `a.cls` 0, `b.jpg`, `b.cls` 2",
        reads={"train": "x/a=crane (1) x/b=crane (2)"},
    ),
    Layout(
        title="a label that is no class",
        tree="x.tar",
        contents={"x.tar": _tar(a_jpg=J, a_json='{"label": 2.7}')},
        shown='`x.tar` with `a.jpg`, `a.json` {"label": 2.7}',
        reads={"train": "refused: has the label 2.7"},
    ),
    Layout(
        title="tars without labels",
        tree="0.tar 1.tar",
        contents={"0.tar": _tar(a_jpg=J, a_txt="x"), "1.tar": _tar(b_jpg=J, b_txt="x")},
        shown="`0.tar`, `1.tar` with `a.jpg`, `a.txt`",
        reads={"train": "refused: 0.tar has no label (.cls or .json) with the key of an image"},
    ),
    Layout(
        title="a tar of split folders",
        tree="any.tar",
        shown="`any.tar` with `ds/Training/a/1.jpg`, `ds/Training/b/2.jpg`, `ds/Testing/a/3.jpg`",
        contents={
            "any.tar": lambda: tar_bytes(
                {"ds/Training/a/1.jpg": jpeg(1), "ds/Training/b/2.jpg": jpeg(2), "ds/Testing/a/3.jpg": jpeg(3)}
            )
        },
        reads={"train": "a/1.jpg=a b/2.jpg=b", "test": "a/3.jpg=a", "val": "refused: no split 'val'"},
    ),
    Layout(
        title="a tar of split folders without classes",
        tree="any.tar",
        shown="`any.tar` with `train/1.jpg`, `test/2.jpg`",
        contents={"any.tar": lambda: tar_bytes({"train/1.jpg": jpeg(1), "test/2.jpg": jpeg(2)})},
        reads={"train": "1.jpg", "test": "2.jpg"},
    ),
    Layout(
        title="a tar of images and label maps",
        tree="any.tar",
        shown="`any.tar` with `images/1.jpg`, `masks/1.png`",
        contents={"any.tar": lambda: tar_bytes({"images/1.jpg": jpeg(1), "masks/1.png": jpeg(2)})},
        reads={"train": "refused: holds images and label maps in the folders images, masks"},
    ),
    Layout(
        title="a tar of class folders, with links in it",
        tree="any.tar",
        contents={
            "any.tar": lambda: linked_tar(
                [("a/1.jpg", J)], [("b/2.jpg", "../a/1.jpg", "soft"), ("b/3.jpg", "/elsewhere/3.jpg", "soft")]
            )
        },
        shown="`any.tar` with `a/1.jpg`, `b/2.jpg` -> `../a/1.jpg`, `b/3.jpg` -> `/elsewhere/3.jpg`",
        reads={"train": "a/1.jpg=a b/2.jpg=b"},
    ),
    Layout(
        title="ILSVRC2012's training archive; the same, unpacked once",
        tree="ILSVRC2012_img_train.tar",
        contents={"ILSVRC2012_img_train.tar": lambda: tar_bytes({"n00000001.tar": tar_bytes({"n00000001_1.JPEG": J})})},
        shown="`ILSVRC2012_img_train.tar` with `n00000001.tar`, ...; or a folder of `n00000001.tar`, ...",
        reads={"train": "n00000001/n00000001_1.JPEG=n00000001"},
    ),
    Layout(title="a compressed archive", tree="x.tar.gz", reads={"train": "refused: holds no image"}),
]
TABLES = [
    Layout(
        title="Hugging Face parquet: a mask before the image, two labels",
        tree="data/train-00000-of-00001.parquet data/validation-00000-of-00001.parquet",
        contents={
            name: _parquet(classes, mask=[P], image=[J], coarse_label=[0], fine_label=[1])
            for classes in [{"coarse_label": ["pet"], "fine_label": ["cat", "dog"]}]
            for name in ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet")
        },
        shown="`data/train-00000-of-00001.parquet`, `data/validation-00000-of-00001.parquet` with the columns mask, "
        "image, coarse_label, fine_label",
        reads={"train": "data_train-00000-of-00001_0000000=dog", "val": "data_validation-00000-of-00001_0000000=dog"},
    ),
    Layout(
        title="parquet files that list their classes in two orders",
        tree="0.parquet 1.parquet",
        contents={
            "0.parquet": _parquet({"label": ["cat", "dog"]}, image=[J], label=[0]),
            "1.parquet": _parquet({"label": ["dog", "cat"]}, image=[J], label=[0]),
        },
        shown="`0.parquet` (0 = cat, 1 = dog), `1.parquet` (0 = dog, 1 = cat)",
        reads={"train": "0_0000000=cat 1_0000000=dog"},
    ),
    Layout(
        title="parquet files with other columns",
        tree="0.parquet 1.parquet",
        contents={"0.parquet": _parquet(image=[J], label=[0]), "1.parquet": _parquet(image=[J], target=[0])},
        shown="`0.parquet` with image, label; `1.parquet` with image, target",
        reads={"train": "refused: the column 'label' is int64 in 0.parquet and absent"},
    ),
    Layout(
        title="parquet with a split column, labels called target",
        tree="all.parquet",
        contents={"all.parquet": _parquet(image=[J, J], target=[7, 0], split=["train", "Validation"])},
        shown="`all.parquet` with image, target, split",
        reads={"train": "all_0000000=7", "val": "all_0000001=0", "test": "refused: has no split 'test'"},
    ),
    Layout(
        title="parquet where two columns could be the image",
        tree="all.parquet",
        contents={"all.parquet": _parquet(front=[J], back=[J])},
        shown="`all.parquet` with front, back",
        reads={"train": "refused: --image-column"},
    ),
    Layout(
        title="a list",
        tree="labels.csv im/1.jpg im/2.jpg im/3.jpg",
        contents={"labels.csv": "file,labels,split\nim/1.jpg,cat,train\n./im/2.jpg,dog,valid\n"},
        shown="`labels.csv` with `im/1.jpg,cat,train` and `./im/2.jpg,dog,valid`; `im/1.jpg`, `im/2.jpg`, `im/3.jpg`",
        reads={"train": "im/1.jpg=cat", "val": "im/2.jpg=dog"},
    ),
    Layout(
        title="a list with an open quote",
        tree="labels.csv im/1.jpg im/2.jpg",
        contents={"labels.csv": 'file,labels\n"im/1.jpg,cat\nim/2.jpg",dog\n'},
        shown='`labels.csv` with `"im/1.jpg,cat` and `im/2.jpg",dog`',
        reads={"train": 'refused: a quote " is opened and not closed on its line'},
    ),
    Layout(
        title="a list with two labels for one image",
        tree="labels.csv im/1.jpg",
        contents={"labels.csv": "file,labels\nim/1.jpg,cat\n./im/1.jpg,dog\n"},
        shown="`labels.csv` with `im/1.jpg,cat` and `./im/1.jpg,dog`",
        reads={"train": "refused: names im/1.jpg on the lines 2 and 3, as 'cat' and as 'dog'"},
    ),
]
