"""What one process needs to run an exported file: measured in a process of its own, which loads nothing else.

    python -m tests.benchmarks.model.edge_memory FILE model|predict

model     onnxruntime and the file on made-up inputs: prints by how many bytes loading and running raised the peak
predict   the whole way from encoded images to answers, superpixels included: prints the peak of the process
"""

import sys

import numpy as np

from pipeline.io.peak_memory import peak_bytes


def main(argv: list[str]) -> int:
    file, what = argv
    if what == "model":
        import onnxruntime

        before = peak_bytes()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        inputs = {node.name: np.zeros(node.shape, np.uint8) for node in session.get_inputs()}
        for _ in range(3):
            session.run(None, inputs)
        sys.stdout.write(f"{peak_bytes() - before}\n")
        return 0
    from focusvit.predict.onnx_predictor import OnnxPredictor
    from pipeline.image.png import encode_gray8
    from pipeline.sources.embedded import draw_shape

    predictor = OnnxPredictor(file)
    drawn = [draw_shape(np.random.default_rng(i), i % 8, 256)[0][..., 0] for i in range(predictor.batch_size)]
    for _ in range(3):
        predictor.predict([predictor.view(encode_gray8(np.ascontiguousarray(image))) for image in drawn])
    sys.stdout.write(f"{peak_bytes()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
