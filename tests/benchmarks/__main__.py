"""`python -m tests.benchmarks NAME`: each room measures its own code; this only knows where."""

from focusvit.cli import Verbs, main

BENCHES: Verbs = {
    "preprocess": (
        "tests.benchmarks.pipeline.preprocess:main",
        "images per second and core, per stage, beside the bare floor",
    ),
    "superpixels": (
        "tests.benchmarks.pipeline.superpixels:main",
        "quality of maps and cuts on BSDS500, and their times",
    ),
    "scale": (
        "tests.benchmarks.pipeline.scale:main",
        "one driver and many CPUs: what scheduling costs, what gives way first",
    ),
    "drop-in": (
        "tests.benchmarks.model.drop_in:main",
        "the ViT of Hugging Face patched and not: speed, its own Trainer",
    ),
    "slic": ("tests.benchmarks.model.slic:main", "superpixels by torch beside fast-slic: quality on BSDS500, time"),
    "model": ("tests.benchmarks.model.throughput:main", "throughput and memory beside a plain ViT and the controls"),
    "original": ("tests.benchmarks.model.original:main", "costs and pictures of every row of the original repository"),
    "growth": (
        "tests.benchmarks.model.growth:main",
        "exponents of cost, and what they make of ImageNet-1k and of a billion",
    ),
    "energy": ("tests.benchmarks.model.energy:main", "CPU seconds and joules of 1,000 images, plain ViT beside it"),
    "objects": (
        "tests.benchmarks.transfer.objects:main",
        "do attended tokens lie on the object? exact masks, drawn or of CamVid",
    ),
    "loader": (
        "tests.benchmarks.train.loader:main",
        "CPU time of a training sample with its map, beside other loaders",
    ),
    "train": ("tests.benchmarks.train.train:main", "the training step, the loop around it, checkpoints, a second rank"),
    "edge": (
        "tests.benchmarks.model.edge:main",
        "exported files in onnxruntime: latency, size, memory beside a plain ViT",
    ),
    "agreement": ("tests.benchmarks.agreement:main", "the tables of two runs side by side: do their ratios agree?"),
    "transfer": (
        "tests.benchmarks.transfer.speed:main",
        "what limits feature extraction; solvers beside scikit-learn's",
    ),
    "study": ("tests.benchmarks.study.study:main", "accuracy beside a plain ViT and the controls, into a ledger"),
    "starts": ("tests.benchmarks.train.starts:main", "what pretrained weights are worth: frozen, and fine-tuned"),
    "box": ("tests.benchmarks.train.box:main", "a run's checkpoint as a model of the package, in half precision"),
    "picture": ("tests.benchmarks.model.picture:main", "the picture of the README, drawn with a checkpoint"),
    "hosts": (
        "tests.benchmarks.hosts.hosts:main",
        "superpixels in a pretrained ViT, frozen and fine-tuned: quality against speed",
    ),
    "scenes": (
        "tests.benchmarks.scenes.scenes:main",
        "street scenes learned from scratch: FocusViT, grid, fewer pixels, plain ViT; quality against speed",
    ),
    "hosts-picture": ("tests.benchmarks.hosts.pictures:main", "score against speed of every `bench hosts` record"),
    "gpu": ("tests.benchmarks.gpu.gpu:main", "every figure that needs a GPU, by one command; --rehearsal on a CPU"),
    "gpu-inputs": ("tests.benchmarks.gpu.inputs:main", "arrays of the study that travel to a GPU machine"),
}


if __name__ == "__main__":
    raise SystemExit(main(program="python -m tests.benchmarks", verbs=BENCHES, options={}))
