"""A real `mlflow server` on sqlite over HTTP, started and ended by a test."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from .ray_head import die_with_parent, free_ports


class MlflowServer:
    """Use it in a `with`; `stop` and `start` again keep the port and the store."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.folder, self.options = folder, options
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **(environment or {}),
        }
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        until = time.monotonic() + 120
        while True:
            try:
                if requests.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except requests.RequestException:
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"mlflow server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.3)

    def stop(self) -> None:
        """End the server and its workers: the process group that we started, nothing else."""
        if self.process is None:
            return
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def __enter__(self) -> "MlflowServer":
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()


def tidy_mlflow(page: Any) -> None:
    """What a reviewer does once in a new browser: close the assistant, choose the pages of model training."""
    for selector in ("[data-component-id='mlflow.assistant.chat_panel.close']", "text='Model training'"):
        found = page.locator(selector).first
        if found.is_visible():
            found.click()
