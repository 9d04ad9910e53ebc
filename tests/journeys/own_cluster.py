"""A cluster, from raw images to fine-tuned weights: `python -m tests.journeys.own_cluster`.

Two nodes and an MLflow server start on this machine; with machines of your own the commands are the same
(cluster/README.md, journey 2, has the lines that start Ray and MLflow there). The cells (# %%) run one by one.
"""

# %% Two nodes of one CPU each, a token that keeps others out, and a tracking server
import atexit
import os
import time
from contextlib import ExitStack

import matplotlib.pyplot as plt
import mlflow
from mlflow.entities import Run, ViewType

from pipeline.sources.embedded import write_digits, write_shapes
from tests.journeys.steps import focusvit_command, fresh_folder
from tests.testkit.mlflow_server import MlflowServer
from tests.testkit.ray_head import RayHead

out = fresh_folder("own_cluster")
services = ExitStack()
atexit.register(services.close)
head = services.enter_context(RayHead(num_cpus=1))
head.add_node(num_cpus=1)
server = services.enter_context(MlflowServer(out / "mlflow"))
os.environ |= head.environment | {"RAY_API_SERVER_ADDRESS": head.url, "MLFLOW_TRACKING_URI": server.url}

# %% Images that all nodes see: shapes to pretrain on, handwritten digits to fine-tune for
write_shapes(out / "images" / "shapes", classes=4, train_per_class=100, val_per_class=20)
write_digits(out / "images" / "digits")


# %% Preprocessing jobs: shards are made as tasks, on both nodes
def submit(*words: object) -> None:
    focusvit_command("submit", "--", *words)


for name in ("shapes", "digits"):
    for split, most in (("train", 400), ("val", 100)):
        place = ("--source", out / "images" / name, "--out", out / "shards" / name, "--split", split)
        submit("preprocess", *place, "--max-samples", most, "--samples-per-shard", 50)

# %% Pretraining on two workers, one on each node; then fine-tuning from its best checkpoint
where = ("--workers", 2, "--device", "cpu", "--cpus-per-worker", 1)
runs = {"pretrain": out / "runs" / "shapes", "finetune": out / "runs" / "digits"}
submit("pretrain", "demo", "--data", out / "shards" / "shapes", "--run-dir", runs["pretrain"], *where)
submit(
    "finetune", "--checkpoint", runs["pretrain"], "--data", out / "shards" / "digits", "--run-dir", runs["finetune"],
    "--epochs", 3, *where,
)  # fmt: skip
focusvit_command("jobs", "list")

# %% What a reviewer reads in MLflow (`focusvit ui --tracking-uri URL` opens the pages)
mlflow.set_tracking_uri(server.url)
client = mlflow.MlflowClient()
(experiment,) = client.search_experiments(ViewType.ACTIVE_ONLY, filter_string="name = 'focusvit'")
found: dict[str, Run] = {run.data.tags["focusvit.kind"]: run for run in client.search_runs([experiment.experiment_id])}
for kind, run in found.items():
    minutes = (run.info.end_time or time.time() * 1000) / 60000 - run.info.start_time / 60000
    print(f"{kind}: {run.info.status}, best top-1 {run.data.metrics['best/top1']:.1%}, {minutes:.1f} minutes, "
          f"at {server.url}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}")  # fmt: skip

# %% Its curves and one of its pictures, side by side
figure, (curves, seen) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(2, 1), layout="constrained")
for kind, run in found.items():
    points = client.get_metric_history(run.info.run_id, "val/top1")
    curves.plot([point.step for point in points], [point.value for point in points], marker="o", label=kind)
curves.set(xlabel="samples seen", ylabel="val/top1", ylim=(0, 1))
curves.legend()
(picture,) = (
    item.path for item in client.list_artifacts(found["finetune"].info.run_id, "superpixels") if "training" in item.path
)
seen.imshow(plt.imread(client.download_artifacts(found["finetune"].info.run_id, picture, str(out))))
seen.set(title="what the workers saw", xticks=[], yticks=[])
figure.savefig(out / "runs.png", dpi=100)
services.close()
print(f"picture: {out / 'runs.png'}")
