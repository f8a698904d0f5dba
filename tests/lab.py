"""A real JupyterLab and a headless Chromium that shows one notebook of it.

Both live on loopback, in folders of their own, and are gone when the test is. Whatever the page
asks for outside loopback is refused and recorded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_LOCAL_SCHEMES = ("data", "blob", "about")
_START = 60.0
_READY = """() => { const app = window.jupyterapp?.shell.currentWidget;
    return !!document.querySelector('.jp-CodeCell')
        && app?.sessionContext?.session?.kernel?.status === 'idle'; }"""


def chromium() -> str:
    """The path of a Chromium, empty when there is none."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), "")


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def missing() -> str:
    """What a browser test lacks here; empty when nothing."""
    for package in ("jupyterlab", "playwright", "anywidget"):
        if not installed(package):
            return f"{package} is not installed"
    return "" if chromium() else "no Chromium is installed (Debian: apt-get install chromium)"


class Server(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path


def _settings(home: Path) -> None:
    for plugin, values in {
        "@jupyterlab/apputils-extension/notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
        },
        # All cells stay on the page, so that a test can look at any of them.
        "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
        "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
    }.items():
        path = home / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (home / "config").mkdir(exist_ok=True)
    config = {"JupyterNotebookApp": {"expose_app_in_browser": True}}
    (home / "config/jupyter_server_config.json").write_text(json.dumps(config))


def _environment(home: Path) -> dict[str, str]:
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {
        **os.environ,
        **{name: str(home / folder) for name, folder in folders.items()},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _wait_for_server(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        for path in runtime.glob("jpserver-*.json"):
            try:
                return str(json.loads(path.read_text())["url"])
            except (ValueError, KeyError):
                pass  # still being written
        try:
            code = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"JupyterLab ended with {code}: {log.read_text()[-2000:]}")
    raise TimeoutError(f"JupyterLab did not start within {_START} s: {log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it started."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    _, alive = psutil.wait_procs(family, timeout=5)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=5)


@contextmanager
def lab(folder: Path, home: Path) -> Iterator[Server]:
    """JupyterLab over the notebooks in ``folder``, its own files in ``home``."""
    _settings(home)
    token = secrets.token_hex(16)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.root_dir": str(folder),
        "ServerApp.allow_root": "True",
        "ServerApp.open_browser": "False",
        "IdentityProvider.token": token,
        "LabApp.extension_manager": "readonly",
        "LabApp.expose_app_in_browser": "True",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    log = home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words],
            env=_environment(home), cwd=folder, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            url = _wait_for_server(process, home / "runtime", log)
            yield Server(url.rstrip("/").removesuffix("/lab"), token, folder)
        finally:
            _end(process)


class Notebook:
    """One notebook open in the browser; ``outside`` and ``errors`` are what must stay empty."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page = page
        self.server = server
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.route("**/*", self._pass_loopback)
        page.on("websocket", lambda socket: self._judge(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._listen)

    def _judge(self, url: str) -> bool:
        parts = urlsplit(url)
        inside = parts.scheme in _LOCAL_SCHEMES or parts.hostname in _LOOPBACK
        if not inside:
            self.outside.append(url)
        return inside

    def _pass_loopback(self, route: Any) -> None:
        if self._judge(route.request.url):
            route.continue_()
        else:
            route.abort()

    def _listen(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def command(self, name: str) -> None:
        """Execute a command of JupyterLab."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", name)

    def darken(self, *, dark: bool) -> None:
        """Choose the dark or the light theme; returns when it is in force."""
        theme = f"JupyterLab {'Dark' if dark else 'Light'}"
        change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(change, theme)
        light = "light => document.body.dataset.jpThemeLight === light"
        self.wait(theme, light, str(not dark).lower())

    def run_all(self) -> None:
        """Start to run all cells, from the top."""
        self.command("notebook:run-all-cells")

    def run_cell(self, index: int) -> None:
        """Start to run one code cell."""
        self.page.locator(".jp-CodeCell .jp-InputArea-editor").nth(index).click()
        self.command("notebook:run-cell")

    def prompts(self) -> list[str]:
        """What stands in the brackets before each code cell."""
        texts = self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        return [text.strip().strip("[]:") for text in texts]

    def wait(self, what: str, script: str, argument: Any = None, timeout: float = 60) -> None:
        """Wait until the JavaScript function says true; ``what`` names the wait."""
        from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

        try:
            self.page.wait_for_function(script, arg=argument, timeout=1000 * timeout, polling=100)
        except PlaywrightTimeoutError:
            state = f"prompts {self.prompts()}, errors {self.errors}"
            raise TimeoutError(f"{what}: not within {timeout} s; {state}") from None

    def wait_until_run(self, timeout: float = 120) -> None:
        """Wait until every code cell has a number before it; a cell that raised fails at once."""
        script = """() => !!document.querySelector('.jp-OutputArea [data-mime-type$=".error"]')
            || [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
                .every(prompt => /\\d/.test(prompt.textContent))"""
        self.wait("all cells to end", script, timeout=timeout)
        raised = self.page.locator(".jp-OutputArea [data-mime-type$='.error']").all_inner_texts()
        assert not raised, raised

    def reload(self) -> None:
        """Load the page again; the kernel goes on."""
        self.page.reload(timeout=60_000)
        self.wait("the notebook to open again and its kernel to be idle", _READY)

    def save(self) -> None:
        """Save the notebook, with the state of its widgets; returns when it is written."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def outputs(self) -> str:
        """All text below the cells."""
        return "\n".join(self.page.locator(".jp-OutputArea").all_inner_texts())


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium(), args=list(_FLAGS))
        try:
            yield program
        finally:
            program.close()


@contextmanager
def opened(
    program: Any, server: Server, name: str, *, height: int = 1400, app: str = "lab/tree"
) -> Iterator[Notebook]:
    """The notebook ``name`` on a fresh page of the browser; its kernel ends with it.

    ``app`` is "lab/tree" for JupyterLab and "notebooks" for Notebook 7.
    """
    page = program.new_page(viewport={"width": 1280, "height": height})
    try:
        page.set_default_timeout(30_000)
        notebook = Notebook(page, server)
        page.goto(f"{server.url}/{app}/{name}?reset&token={server.token}", timeout=60_000)
        notebook.wait("the notebook to open and its kernel to be idle", _READY)
        yield notebook
        end = "() => window.jupyterapp.shell.currentWidget?.sessionContext.shutdown()"
        page.evaluate(end)
    finally:
        page.close()


def write_notebook(path: Path, cells: list[str]) -> None:
    """A notebook of code cells."""
    rows = [
        {"cell_type": "code", "execution_count": None, "id": f"cell{index}", "metadata": {},
         "outputs": [], "source": source}
        for index, source in enumerate(cells)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document = {"cells": rows, "metadata": {"kernelspec": kernel}, "nbformat": 4,
                "nbformat_minor": 5}  # fmt: skip
    path.write_text(json.dumps(document))


def assert_alone(notebook):
    assert notebook.outside == []
    assert notebook.errors == []
