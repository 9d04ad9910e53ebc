"""`focusvit bench NAME`: each room measures its own code; this only knows where."""

import importlib
import sys

from pipeline.errors import UsageError

BENCHES: dict[str, tuple[str, str]] = {
    "preprocess": ("pipeline.bench_preprocess:main", "images per second and core, per stage, beside the bare floor"),
    "superpixels": ("pipeline.bench_superpixels:main", "quality of maps and cuts on BSDS500, and their times"),
    "scale": ("pipeline.bench_scale:main", "one driver and many CPUs: what scheduling costs, what gives way first"),
    "drop-in": ("focusvit.bench_dropin:main", "the ViT of Hugging Face patched and not: speed, its own Trainer"),
    "slic": ("focusvit.bench_slic:main", "superpixels by torch beside fast-slic: quality on BSDS500, time"),
    "model": ("focusvit.bench_model:main", "throughput and memory beside a plain ViT and the controls"),
    "original": ("focusvit.bench_original:main", "costs and pictures of every row of the original repository"),
    "growth": ("focusvit.bench_growth:main", "exponents of cost, and what they make of ImageNet-1k and of a billion"),
    "energy": ("focusvit.bench_energy:main", "CPU seconds and joules of 1,000 images, plain ViT beside it"),
    "objects": ("transfer.bench_objects:main", "do attended tokens lie on the object? exact masks, drawn or of CamVid"),
    "loader": ("focusvit.bench_loader:main", "CPU time of a training sample with its map, beside other loaders"),
    "train": ("focusvit.bench_train:main", "the training step, the loop around it, checkpoints, a second rank"),
    "edge": ("focusvit.bench_edge:main", "exported files in onnxruntime: latency, size, memory beside a plain ViT"),
    "agreement": ("pipeline.bench_agreement:main", "the tables of two runs side by side: do their ratios agree?"),
    "transfer": ("transfer.bench_transfer:main", "what limits feature extraction; solvers beside scikit-learn's"),
}


def main(argv: list[str]) -> int:
    rows = "\n".join(f"  {name:<12} {text}" for name, (_, text) in BENCHES.items())
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(
            f"usage: focusvit bench NAME ...\n\n{rows}\n\n'focusvit bench NAME --help' shows its options.\n"
        )
        return 0 if argv else 2
    if argv[0] not in BENCHES:
        raise UsageError(f"there is no bench '{argv[0]}'. Benches: {', '.join(BENCHES)}.")
    module, function = BENCHES[argv[0]][0].split(":")
    return getattr(importlib.import_module(module), function)(argv[1:])
