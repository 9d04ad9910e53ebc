"""A checkpoint as an MLflow model: a pyfunc that predicts from image files or bytes and carries its own code.

And the registry: a model under a name, and an alias for the best one. With `tracking.py` this is all that knows MLflow.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import focusvit
import pipeline
from pipeline.io import storage

from .tracker import Tracker

BEST = "best"
"""The alias of the version with the highest score."""
_PACKAGES = ("torch", "numpy", "mlflow", "opencv-python-headless", "fast-slic", "numba", "safetensors", "fsspec")
_CODE = """
import mlflow
import pandas
from focusvit.predict.predictor import Predictor


class ImageClassifier(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.predictor = Predictor(context.artifacts["checkpoint"])

    def predict(self, context, model_input: pandas.DataFrame, params=None) -> pandas.DataFrame:
        return self.predictor.table(model_input)


mlflow.models.set_model(ImageClassifier())
"""
_EXAMPLE = ["image.jpg"]


def _signature() -> Any:
    """One unnamed column in, the columns of `Predictor.table` out.

    MLflow makes that column of a list, an array, a series or a single value. Its type is any: MLflow has none that
    takes file names and bytes, and so no type hint either (list[str] would refuse bytes).
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    told = {"class": "string", "share": "double", "top5": "string"}  # missing in the row of an image with an error
    outputs = [ColSpec(kind, name, required=False) for name, kind in told.items()]
    return ModelSignature(Schema([ColSpec(AnyType())]), Schema([*outputs, ColSpec("string", "error")]))


def log_model(tracker: Tracker, checkpoint_uri: str) -> Any:
    """Log the model to the tracker's run and return MLflow's description of it (model_uri, model_id)."""
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
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
                name="model",
                python_model=str(code),
                signature=_signature(),
                input_example=_EXAMPLE,
                artifacts={"checkpoint": str(Path(folder, "checkpoint"))},
                code_paths=[*focusvit.__path__, *pipeline.__path__],
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _PACKAGES],
            )
        tracker.running()
    return logged


def register(tracker: Tracker, name: str, checkpoint_uri: str, score: float, score_of: str) -> str:
    """Log the model, register it as a version of `name`, and give it the alias `best` if its score is the highest.

    Scores are compared only when they are of the same thing (`score_of`, such as 'mean logistic of cifar10, digits').
    Returns one line that says what happened.
    """
    from mlflow.exceptions import MlflowException

    client = tracker.client
    logged = log_model(tracker, checkpoint_uri)
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
