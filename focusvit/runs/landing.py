"""What a reviewer meets first in MLflow: how to read an experiment, a view of its runs, and the address that opens it.

MLflow keeps a shared view (columns, order of runs and of charts) as a tag of the experiment; the address names the tag.
"""

import json
from typing import Any

_VIEW = "focusvit"
_TAG = f"mlflow.sharedViewState.{_VIEW}"
_TRAINING = """\
**Trainings of FocusViT.** A run is one training; started again on its run directory, it goes on as the same run.

- `val/top1` is the share of validation images whose first answer is right, `best/top1` that of the checkpoint that
  became the model. The x axis of every chart counts the samples seen. A run's description compares it with chance.
- `train/...` is measured on augmented images, so accuracy there may lie below `val/top1`.
- `work/...` says how the machine worked: images a second, the share of the time that it waited for data, memory.
- Artifacts of a run: `superpixels` as the model saw them, `scores` (confusion matrix, recall of each class),
  `attention` block by block, `token_budgets` from few superpixels to many.
- The model of a run (tab Models) carries its scores, and predicts from the bytes of an image.
"""
_TRANSFER = """\
**Suites of downstream tasks.** A run is one suite on one checkpoint; each task and protocol is a child of it.

- `suite_score` is the mean over the tasks; `mean/GROUP/PROTOCOL` the mean over a group of them, `TASK/PROTOCOL` the
  score of one. Read them relative to
  `chance` and to the baselines in `tables/results.json`: an untrained network, and raw pixels.
- A child has its score with the 95 % interval (`_low`, `_high`); `num_test` says over how many images.
- Artifacts of a suite: `tables/results.json` is the whole table, `charts/results.png` its bars. Of a child: `scores`
  (confusion matrix, each class), and `masks` where label maps are painted.
"""
_SECTIONS = ("best", "val", "train", "work")
_TRAINING_COLUMNS = [
    "metrics.`best/top1`", "metrics.`val/top1`", "metrics.`val/loss`", "metrics.`train/loss`",
    "metrics.`work/img_per_s`", "params.`epochs`", "params.`model.tokens`", "params.`optim.lr`", "attributes.`Dataset`",
]  # fmt: skip
_TRANSFER_COLUMNS = [
    "metrics.`suite_score`", "metrics.`top1`", "metrics.`top1_low`", "metrics.`top1_high`", "metrics.`miou`",
    "metrics.`chance`", "tags.`task`", "tags.`protocol`", "tags.`features`",
]  # fmt: skip


def experiment_tags(kind: str) -> dict[str, str]:
    """Tags of a new experiment for runs of a kind (their tag focusvit.kind: pretrain, finetune, transfer)."""
    transfer = kind.startswith("transfer")
    columns = _TRANSFER_COLUMNS if transfer else _TRAINING_COLUMNS
    view = {
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunCharts": [],  # MLflow adds a chart for each metric, into the section of its name
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False} for name in _SECTIONS
        ],
        "isAccordionReordered": True,
    }
    return {
        "mlflow.note.content": _TRANSFER if transfer else _TRAINING,
        "mlflow.experimentKind": "custom_model_development",  # else MLflow opens the pages of language models
        "mlflow.experiment.primaryMetric.name": "top1" if transfer else "best/top1",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        _TAG: json.dumps(view),
    }


def landing_page(url: str, experiment: dict[str, Any]) -> str:
    """The address of an experiment's runs (as MLflow's REST interface describes it), with our view if it has that."""
    page = f"{url}/#/experiments/{experiment['experiment_id']}/runs?workflowType=machine_learning"
    has_view = any(tag["key"] == _TAG for tag in experiment.get("tags", ()))
    return f"{page}&viewStateShareKey={_VIEW}" if has_view else page
