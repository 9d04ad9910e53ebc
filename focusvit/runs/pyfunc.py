"""A checkpoint as an MLflow model: a pyfunc that predicts from the bytes of images and carries its own code.

And the registry: a model under a name, and an alias for the best one.
"""

import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import focusvit
import pipeline
from pipeline.io import storage

from .checkpoint import load_checkpoint
from .tracker import Point, Tracker

BEST = "best"
"""The alias of the version with the highest score."""
_PACKAGES = ("torch", "numpy", "mlflow", "opencv-python-headless", "fast-slic", "numba", "safetensors", "fsspec")
_CODE = """
import mlflow
import pandas
from focusvit.predict.predictor import Predictor


class ImageClassifier(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.predictor = Predictor.of(context.artifacts["checkpoint"])
        self.folder = context.model_config["images_folder"]

    def predict(self, context, model_input: pandas.DataFrame, params=None) -> pandas.DataFrame:
        return self.predictor.table(model_input, self.folder)


mlflow.models.set_model(ImageClassifier())
"""
_NO_STEP = -1
"""MLflow copies to a logged model what its run has at the model's step, without naming the data that it was measured
on, and then refuses the same points with it. No point has this step."""
# One pixel, as PNG in base64: the form that a request over the network has.
_EXAMPLE = [
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVQIHWNgAAAAAgABz8g15QAAAABJRU5ErkJggg==",
]


@dataclass(frozen=True)
class Scored:
    """What a model reached on a data set of its run: points as in the run's curves, name and identity of the data."""

    points: list[Point]
    dataset: str
    identity: str


def _signature() -> Any:
    """One unnamed column in, the columns of `Predictor.table` out.

    MLflow makes that column of a list, an array, a series or a single value. Its type is any: MLflow has none that
    takes text and bytes, and so no type hint either (list[str] would refuse bytes).
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    told = {"class": "string", "share": "double", "top5": "string"}  # missing in the row of an image with an error
    outputs = [ColSpec(kind, name, required=False) for name, kind in told.items()]
    return ModelSignature(Schema([ColSpec(AnyType())]), Schema([*outputs, ColSpec("string", "error")]))


def _sources(package: ModuleType, to: Path) -> str:
    """A copy of a package without the weights in its box: no logged model needs those of others."""
    (place,) = package.__path__
    weights = shutil.ignore_patterns("*.safetensors", "__pycache__")
    return str(shutil.copytree(place, to / Path(place).name, ignore=weights))


def log_model(tracker: Tracker, checkpoint_uri: str, scored: Sequence[Scored] = ()) -> Any:
    """Log the model under the name of the tracker's run; returns MLflow's description of it (model_uri, model_id).

    It predicts from bytes and base64 text. Text names files only where who loads it says below which folder:
    `load_model(uri, model_config={"images_folder": "/data/images"})`.
    """
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    library = load_checkpoint(checkpoint_uri).model.get("library")  # a host needs its own
    packages = (*_PACKAGES, *((library,) if library else ()))
    with tempfile.TemporaryDirectory() as folder:
        for file in storage.list_names(checkpoint_uri):
            if file != "state.safetensors":  # the optimizer's moments are of no use to a reader of the model
                data = storage.read_bytes(storage.join(checkpoint_uri, file))
                storage.put(str(Path(folder, "checkpoint", file)), data)
        code = Path(folder, "focusvit_model.py")
        code.write_text(_CODE)
        # The run is closed at the end of this block and set to its real state by `finish`.
        with mlflow.start_run(run_id=tracker.run_id):
            logged = mlflow.pyfunc.log_model(
                name=re.sub(r"[\s/:.%\"']+", " ", tracker.name).strip() or "model",  # MLflow refuses these in a name
                python_model=str(code),
                signature=_signature(),
                input_example=_EXAMPLE,
                artifacts={"checkpoint": str(Path(folder, "checkpoint"))},
                code_paths=[_sources(package, Path(folder, "sources")) for package in (focusvit, pipeline)],
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
                model_config={"images_folder": ""},
                step=_NO_STEP,
            )
        tracker.running()
    for one in scored:
        tracker.model_scores(logged.model_id, one.points, one.dataset, one.identity)
    return logged


def register(
    tracker: Tracker, name: str, checkpoint_uri: str, score: float, score_of: str, scored: Sequence[Scored] = ()
) -> str:
    """Log the model, register it as a version of `name`, and give it the alias `best` if its score is the highest.

    Scores are compared only when they are of the same thing (`score_of`, such as 'mean logistic of cifar10, digits').
    Returns one line that says what happened.
    """
    from mlflow.exceptions import MlflowException

    client = tracker.client
    logged = log_model(tracker, checkpoint_uri, scored)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {"score": f"{score:.6f}", "score_of": score_of, "checkpoint": checkpoint_uri}
    # A server refuses a source without its model id; a database file does not ask.
    version = client.create_model_version(
        name, logged.model_uri, run_id=tracker.run_id, tags=tags, model_id=logged.model_id
    ).version
    said = f"registered {name} version {version} ({score:.2%} {score_of})"
    best = _best(client, name)
    if best is None or (best.tags.get("score_of") == score_of and score > float(best.tags["score"])):
        client.set_registered_model_alias(name, BEST, version)
        return f"{said}; it is '{BEST}' now: mlflow.pyfunc.load_model('models:/{name}@{BEST}')"
    if best.tags.get("score_of") != score_of:
        return f"{said}; '{BEST}' stays version {best.version}, whose score is of other tasks ({best.tags['score_of']})"
    return f"{said}; '{BEST}' stays version {best.version} ({float(best.tags['score']):.2%})"


def _best(client: Any, name: str) -> Any:
    """The version with the alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, BEST)
    except MlflowException:  # no version has it yet
        return None
