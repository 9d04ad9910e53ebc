"""The pages that a reviewer opens, in headless Chromium: MLflow after a small road on a real head, and Ray's job page.

`make soak`. Pictures go to $FOCUSVIT_PICTURES, else to the test's own folder: they are made to be looked at.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from focusvit.runs.landing import landing_page
from pipeline.sources.embedded import write_shapes
from testkit.mlflow_server import MlflowServer, tidy_mlflow
from testkit.on_cluster import Cluster
from testkit.ray_head import RayHead

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]  # starting and ending real servers counts too
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run",
         "--disable-component-update", "--disable-default-apps"]  # fmt: skip


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """A head that has run a job, and two pretrainings to compare (made without Ray: their pages are the same)."""
    folder = tmp_path_factory.mktemp("browser")
    write_shapes(folder / "images", train_per_class=16, val_per_class=8)
    with RayHead(num_cpus=1) as head, MlflowServer(folder / "mlflow") as server:
        cluster = Cluster(head, server, folder)
        shards, preprocess = folder / "shards", ("preprocess", "--source", folder / "images", "--out")
        cluster.submit(*preprocess, shards, "--split", "train", "--samples-per-shard", 32)
        cluster.focusvit(*preprocess, shards, "--split", "val", "--local")
        for name, rate in (("fast", 2e-3), ("slow", 2e-4)):
            cluster.focusvit(
                "pretrain", "demo", "--data", shards, "--run-dir", folder / "runs" / name, "--local", "--device", "cpu",
                "--epochs", 4, "--global-batch", 16, "--eval-every-epochs", 1, "--log-every-steps", 2,
                "--optim.lr", rate,
            )  # fmt: skip
        yield cluster


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("FOCUSVIT_PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Visit:
    """Opens pages and keeps what went wrong on them: script errors, and requests that left this machine."""

    def __init__(self, browser, folder: Path, cookies: list[dict] | None = None) -> None:
        context = browser.new_context(viewport={"width": 1500, "height": 950})
        context.add_cookies(cookies or [])
        self.page, self.folder = context.new_page(), folder
        self.errors: list[str] = []
        self.left: list[str] = []
        self.missing: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1", "http://localhost", "data:", "blob:")):
            self.left.append(url)

    def open(self, url: str, name: str, *words: str, height_px: int = 950) -> str:
        """Open `url`, wait for every word, take a picture in any case; returns the text of the page.

        Charts below the fold are not drawn at all: a high window has none.
        """
        self.page.set_viewport_size({"width": 1500, "height": height_px})
        self.page.goto(url, timeout=120_000)
        until, text = time.monotonic() + 60, ""
        while time.monotonic() < until and not all(word in text for word in words):
            time.sleep(0.5)
            text = self.page.inner_text("body")
        self.missing += [f"{name}: no '{word}'" for word in words if word not in text]
        time.sleep(4)  # charts and pictures draw themselves after the text is there
        self.picture(name)
        return text

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self.folder / f"{name}.png", timeout=120_000)
        (self.folder / f"{name}.txt").write_text(self.page.inner_text("body"))


def test_mlflow_pages_are_what_a_reviewer_needs(reviewed, browser, pictures):
    visit, url = Visit(browser, pictures), reviewed.server.url
    runs = {run["info"]["run_name"]: run for run in reviewed.runs()}
    ids = [run["info"]["run_id"] for run in runs.values()]
    experiment = next(iter(runs.values()))["info"]["experiment_id"]
    assert len(ids) == 2
    home, run = f"{url}/#/experiments/{experiment}", f"{url}/#/experiments/{experiment}/runs/{ids[0]}"
    # A browser that was never here, on the address that `focusvit ui` prints: the pages of training, scores in sight.
    known = reviewed.mlflow("experiments/search", max_results=100)["experiments"]
    landing = landing_page(url, next(one for one in known if one["experiment_id"] == experiment))
    first = visit.open(landing, "mlflow-first-visit", "demo fast", "demo slow", "best/top1", "Trainings of FocusViT")
    assert "Sessions" not in first  # those of language models
    visit.open(f"{landing}&compareRunsMode=CHART", "mlflow-first-charts", "val/top1", height_px=1600)
    tidy_mlflow(visit.page)
    visit.open(f"{url}/#/experiments", "mlflow-experiments", "focusvit")
    visit.open(f"{home}/runs", "mlflow-runs", "demo fast", "demo slow", "shards")
    visit.open(f"{home}/runs?compareRunsMode=CHART", "mlflow-charts", "val/top1", "train/loss", height_px=4400)
    visit.open(
        run,
        "mlflow-run",
        "val/top1",
        "best checkpoint",
        "focusvit pretrain",
        "shards",
        "optim.lr",
        "data_root_hash",
        height_px=3000,
    )
    visit.open(f"{run}/model-metrics", "mlflow-metrics", "best", "train", "val", "work", "val/top1", height_px=3000)
    visit.open(f"{run}/artifacts", "mlflow-artifacts", "superpixels", "scores", "attention")
    for folder, name in (("superpixels", "seen_in_training"), ("scores", "confusion_matrix")):
        visit.page.get_by_text(folder, exact=True).first.click(timeout=10_000)
        visit.page.get_by_text(name).first.click(timeout=10_000)
        time.sleep(4)
        visit.picture(f"mlflow-{name}")
    both = f"runs={json.dumps(ids)}&experiments={json.dumps([experiment])}"
    visit.open(
        f"{url}/#/compare-runs?{both}", "mlflow-compare", "optim.lr", "0.002", "0.0002", "train/loss", height_px=2400
    )
    visit.open(f"{home}/models", "mlflow-models", "demo fast", "demo slow")
    assert visit.missing == [] and visit.errors == [] and visit.left == []


def test_the_job_page_of_ray_shows_command_and_log(reviewed, browser, pictures):
    token = {
        "name": "ray-authentication-token",
        "value": reviewed.head.token_path.read_text(),
        "url": reviewed.head.url,
    }
    visit = Visit(browser, pictures, [token])
    jobs = json.loads(reviewed.focusvit("jobs", "list", "--json").stdout)
    visit.open(f"{reviewed.head.url}/#/jobs", "ray-jobs", jobs[0]["job"], "SUCCEEDED")
    page = f"{reviewed.head.url}/#/jobs/{jobs[0]['job']}"
    visit.open(page, "ray-job", "Entrypoint", "cluster.jobs.job preprocess", "check of the nodes", height_px=1600)
    assert visit.missing == []


def test_a_dashboard_without_the_token_shows_nothing(reviewed, browser, pictures):
    visit = Visit(browser, pictures)
    visit.page.goto(f"{reviewed.head.url}/#/jobs")
    time.sleep(4)
    visit.page.screenshot(path=pictures / "ray-login.png")
    assert "preprocess" not in visit.page.inner_text("body")
