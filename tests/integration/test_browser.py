"""The pages that a reviewer opens, in headless Chromium: MLflow after a small road on a real head, and Ray's job page.

`make soak`. Pictures go to $FOCUSVIT_PICTURES, else to the test's own folder: they are made to be looked at.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from testkit.mlflow_server import MlflowServer
from testkit.on_cluster import Cluster
from testkit.ray_head import RayHead

from pipeline.embedded import write_shapes

pytestmark = pytest.mark.soak
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run",
         "--disable-component-update", "--disable-default-apps"]  # fmt: skip


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """A cluster on which a small road has been walked, with two pretrainings to compare."""
    folder = tmp_path_factory.mktemp("browser")
    write_shapes(folder / "images", train_per_class=48, val_per_class=12)
    with RayHead(num_cpus=2) as head, MlflowServer(folder / "mlflow") as server:
        cluster = Cluster(head, server, folder)
        shards, runs = folder / "shards", folder / "runs"
        for split in ("train", "val"):
            cluster.submit("preprocess", "--source", folder / "images", "--out", shards, "--split", split)
        for name, rate in (("fast", 2e-3), ("slow", 2e-4)):
            cluster.submit(
                "pretrain", "demo", "--data", shards, "--run-dir", runs / name, "--workers", 2, "--device", "cpu",
                "--cpus-per-worker", 1, "--epochs", 4, "--eval-every-epochs", 1, "--log-every-steps", 2,
                "--optim.lr", rate,
            )  # fmt: skip
        task = f"shapes={shards}"
        cluster.submit("transfer", "--checkpoint", runs / "fast", "--task", task, "--out", folder / "transfer")
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

    def open(self, url: str, name: str, *, wait_for: str, settle_s: float = 4.0) -> str:
        """Open `url`, wait for a text, take a picture in any case; returns the text of the page."""
        from playwright.sync_api import TimeoutError as PlaywrightTimeout

        self.page.goto(url, timeout=120_000)
        try:
            self.page.get_by_text(wait_for).first.wait_for(timeout=60_000)
        except PlaywrightTimeout:
            self.missing.append(f"{name}: no '{wait_for}'")
        time.sleep(settle_s)  # charts draw themselves after the text is there
        self.page.screenshot(path=self.folder / f"{name}.png", timeout=120_000)
        return self.page.inner_text("body")

    def tidy(self) -> None:
        """What a reviewer does once in a new browser: close the assistant, choose the pages of model training."""
        for selector in ("[data-component-id='mlflow.assistant.chat_panel.close']", "text='Model training'"):
            found = self.page.locator(selector).first
            if found.is_visible():
                found.click()

    def expect(self, name: str, text: str, *words: str) -> None:
        self.missing += [f"{name}: no '{word}'" for word in words if word not in text]


def test_mlflow_pages_are_what_a_reviewer_needs(reviewed, browser, pictures):
    visit, url = Visit(browser, pictures), reviewed.server.url
    runs = {run["info"]["run_name"]: run for run in reviewed.runs()}
    ids = [run["info"]["run_id"] for run in runs.values()]
    experiment = next(iter(runs.values()))["info"]["experiment_id"]
    assert len(ids) == 2
    home, run = f"{url}/#/experiments/{experiment}", f"{url}/#/experiments/{experiment}/runs/{ids[0]}"
    visit.open(f"{url}/#/experiments", "mlflow-experiments", wait_for="focusvit")
    visit.tidy()
    visit.open(f"{url}/#/experiments", "mlflow-experiments", wait_for="focusvit")
    visit.expect("runs", visit.open(f"{home}/runs", "mlflow-runs", wait_for="fast"), "slow")
    overview = visit.open(run, "mlflow-run", wait_for="Parameters")
    visit.expect("run", overview, "val/top1", "Datasets", "optim.lr")
    charts = visit.open(f"{run}/model-metrics", "mlflow-charts", wait_for="train/loss")
    visit.expect("charts", charts, "train", "val", "perf")
    visit.open(f"{run}/artifacts", "mlflow-artifacts", wait_for="superpixels")
    visit.page.get_by_text("superpixels_seen_in_training").first.click(timeout=10_000)
    time.sleep(3)
    visit.page.screenshot(path=pictures / "mlflow-overlay.png", timeout=120_000)
    both = f"runs={json.dumps(ids)}&experiments={json.dumps([experiment])}"
    visit.open(f"{url}/#/compare-runs?{both}", "mlflow-compare", wait_for="optim.lr")
    visit.open(f"{home}/models", "mlflow-models", wait_for="model")
    suite = {run["info"]["experiment_id"] for run in reviewed.runs("transfer")}.pop()
    visit.open(f"{url}/#/experiments/{suite}/runs", "mlflow-transfer", wait_for="shapes")
    assert visit.missing == [] and visit.errors == [] and visit.left == []


def test_the_job_page_of_ray_shows_command_and_log(reviewed, browser, pictures):
    token = {
        "name": "ray-authentication-token",
        "value": reviewed.head.token_path.read_text(),
        "url": reviewed.head.url,
    }
    visit = Visit(browser, pictures, [token])
    jobs = json.loads(reviewed.focusvit("jobs", "list", "--json").stdout)
    listed = visit.open(f"{reviewed.head.url}/#/jobs", "ray-jobs", wait_for=jobs[0]["job"])
    visit.expect("jobs", listed, "SUCCEEDED")
    page = visit.open(f"{reviewed.head.url}/#/jobs/{jobs[0]['job']}", "ray-job", wait_for="Entrypoint")
    visit.expect("job", page, "cluster.job preprocess", "probe of the cluster")
    assert visit.missing == []


def test_a_dashboard_without_the_token_shows_nothing(reviewed, browser, pictures):
    visit = Visit(browser, pictures)
    visit.page.goto(f"{reviewed.head.url}/#/jobs")
    time.sleep(4)
    visit.page.screenshot(path=pictures / "ray-login.png")
    assert "preprocess" not in visit.page.inner_text("body")
