"""A suite in the MLflow UI, in headless Chromium: the suite, its children, the table, the painted masks.

`make soak`. Pictures go to $FOCUSVIT_PICTURES, else to the test's own folder: they are made to be looked at.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from focusvit.cli import main
from testkit.mlflow_server import MlflowServer, tidy_mlflow
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import CLASSES, make_dataset

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A server with one suite of three tasks, one of them dense, and a function that opens its pages."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: apt install chromium")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("pages")
    pictures = Path(os.environ.get("FOCUSVIT_PICTURES") or folder / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    tasks = []
    for name, dense in (("one", False), ("two", False), ("three", False), ("scenes", True)):
        data = make_dataset(folder / name, splits={"train": 30, "val": 12}, dense=dense, name=name)
        if dense:  # its labels are the ground and the shapes
            place = Path(data, "dataset.json")
            place.write_text(json.dumps(json.loads(place.read_text()) | {"classes": ["ground", *CLASSES]}))
        tasks += ["--task", f"{name}={data}"]
    with MlflowServer(folder / "mlflow") as server, sync_playwright() as playwright:
        argv = ["transfer", "--checkpoint", make_checkpoint(folder / "ckpt"), *tasks, "--register", "tiny-model"]
        assert main([*argv, "--out", str(folder / "out"), "--tracking-uri", server.url]) == 0
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": 1500, "height": 950}).new_page()
        page.goto(f"{server.url}/#/experiments", timeout=120_000)
        page.get_by_text("transfer").first.wait_for(timeout=120_000)
        tidy_mlflow(page)

        def show(path: str, name: str, wait_for: str, *click: str, height_px: int = 950) -> str:
            """Open a page, wait for a text, click through texts, take a picture; returns the text of the page."""
            page.set_viewport_size({"width": 1500, "height": height_px})  # what lies below the fold is not drawn
            page.goto(f"{server.url}/#{path}", timeout=120_000)
            page.get_by_text(wait_for).first.wait_for(timeout=120_000)
            for text in click:
                page.get_by_text(text).first.click(timeout=20_000)
                time.sleep(3)
            time.sleep(5)  # charts and pictures draw themselves after the text is there
            page.screenshot(path=pictures / f"{name}.png", timeout=120_000)
            return page.inner_text("body")

        yield server, show
        browser.close()


def test_suite_children_table_and_painted_masks_are_shown(pages):
    import mlflow

    server, show = pages
    client = mlflow.MlflowClient(tracking_uri=server.url)
    experiment = client.get_experiment_by_name("transfer").experiment_id
    runs = client.search_runs([experiment])
    (suite,) = [run for run in runs if run.data.tags["focusvit.kind"] == "transfer"]
    dense = next(run for run in runs if run.info.run_name == "scenes linear")
    listed = show(f"/experiments/{experiment}/runs", "transfer-runs", "quick suite of")
    assert "quick suite of" in listed
    own = f"/experiments/{experiment}/runs/{suite.info.run_id}"
    overview = show(own, "transfer-suite", "Parameters")
    assert "one/knn" in overview and "scenes/linear" in overview and "three logistic" in overview  # a child, by name
    table = show(f"{own}/artifacts", "transfer-table", "tables", "tables", "results.json")
    assert "95 % interval" in table and "logistic" in table
    show(f"{own}/artifacts", "transfer-radar", "charts", "charts", "radar.png")
    inside = f"/experiments/{experiment}/runs/{dense.info.run_id}"
    assert "miou" in show(f"{inside}/model-metrics", "transfer-metrics", "miou", height_px=1600)
    masks = show(f"{inside}/artifacts", "transfer-masks", "masks", "masks", "all.png")
    assert "masks" in masks and "scores" in masks
    models = show("/models/tiny-model", "transfer-model", "tiny-model")
    assert "best" in models
