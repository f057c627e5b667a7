"""Pictures of report and MLflow in the documentation, taken by Chromium of two demo runs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from mlflow import MlflowClient
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SOURCES = "vgg_small,resnet_small,inception_small"
DEMO = f"-m src.main -m experiment=demo attack=fgsm,bim,mi source={SOURCES}"
DATASET, FILTER = "cifar10_mini", "tags.attack = 'bim'"
SIZE = {"width": 1280, "height": 1010}
PATIENCE = 120_000  # milliseconds
ASSISTANT = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"  # MLflow's panel, which opens but once
SUFFIXES = {"light": "", "dark": "-dark"}


def main() -> None:
    """Run the demo with two seeds in an empty folder, serve its store and take the pictures."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        sys.exit(f"Pictures are taken by Chromium; none of {', '.join(NAMES)} is installed.")
    with TemporaryDirectory() as place:
        folder = Path(place)
        run_demo(folder, "seed=1")
        report = run_demo(folder, "seed=0")
        with served(folder) as address, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
            for scheme, suffix in SUFFIXES.items():
                shots = {"answer": report.as_uri(), **pages(address)}
                for name, page in shots.items():
                    take(browser, page, scheme, HERE / f"{name}{suffix}.png")
            browser.close()


def run_demo(folder: Path, *words: str) -> Path:
    """Run the demo and return its report, whose path it prints."""
    command = [sys.executable, *DEMO.split(), *words, "trainer.progress_bar=false"]
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, check=True)
    (report,) = re.findall(r"^report: (\S+)$", done.stdout, re.MULTILINE)
    return folder / report


def pages(address: str) -> dict[str, str]:
    """Return the addresses of MLflow's pages by the names of their pictures."""
    client, charts = MlflowClient(address), "workflowType=machine_learning&compareRunsMode=CHART"
    of_bim = f"{charts}&searchFilter={quote(FILTER)}"
    shown = {"mlflow-curves": (DATASET, of_bim), "mlflow-sweep": (f"{DATASET}-sweeps", charts)}
    return {
        name: f"{address}/#/experiments/"
        f"{client.get_experiment_by_name(experiment).experiment_id}/runs?{words}"
        for name, (experiment, words) in shown.items()
    }


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the UI of the folder's store on a free port; the server ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{folder}/mlruns/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", store]
    server = subprocess.Popen(command, cwd=folder, process_group=0)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health", seconds=120)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # its workers too
        server.wait()


def wait_for(address: str, seconds: float) -> None:
    """Return when an address answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def take(browser: Browser, address: str, scheme: str, path: Path) -> None:
    """Write the picture of a page once its charts are drawn; of MLflow's, those by budget alone."""
    tab = browser.new_page(viewport=SIZE, color_scheme=scheme)
    tab.add_init_script(f"localStorage.setItem('{ASSISTANT}', 'true')")
    tab.goto(address)
    if address.startswith("file:"):
        tab.wait_for_selector("body[data-drawn]", state="attached", timeout=PATIENCE)
    else:
        tab.get_by_placeholder("Search metric charts").fill(
            "(robust_accuracy|success_rate)/curve|transfer_success.*curve", timeout=PATIENCE
        )
        tab.wait_for_selector(".js-plotly-plot .trace", state="attached", timeout=PATIENCE)
        tab.wait_for_timeout(5000)  # charts appear one after another
    tab.screenshot(path=path)
    tab.close()


if __name__ == "__main__":
    main()
