"""A real kernel that runs the cells of a notebook one after the other, without a browser."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

KERNEL_OPTIONS = {"kernel_name": "python3", "timeout": 120, "store_widget_state": False}

TUTORIALS = Path(__file__).resolve().parent.parent / "tutorials"


def shown_by(name, choice, solution):
    """{cell: the text it shows} of a tutorial in whose exercise ``choice`` became ``solution``."""
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(choice, solution)
    NotebookClient(notebook, **KERNEL_OPTIONS).execute()
    return {cell.id: text_of(cell) for cell in notebook.cells if cell.cell_type == "code"}


def require_clean(name):
    """A tutorial is valid, and committed without outputs."""
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


class Session:
    """A kernel that runs cells one after the other; gone with all it started when closed."""

    def __init__(self):
        self.notebook = new_notebook()
        self.client = NotebookClient(self.notebook, **KERNEL_OPTIONS)
        self._loop = asyncio.new_event_loop()
        self._setup = self.client.async_setup_kernel()
        self._loop.run_until_complete(self._setup.__aenter__())
        self.kernel = psutil.Process(self.client.km.provisioner.pid)
        self.run("%load_ext ifog")

    async def _cell(self, cell):
        index = len(self.notebook.cells) - 1
        await self.client.async_execute_cell(cell, index)

    def run(self, source, meanwhile=None):
        """Run a cell to its end; what it showed as text. ``meanwhile`` runs beside it."""
        cell = new_code_cell(source)
        self.notebook.cells.append(cell)
        work = [self._cell(cell)] if meanwhile is None else [self._cell(cell), meanwhile(cell)]

        async def together():
            results = await asyncio.gather(*work, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

        self._loop.run_until_complete(together())
        return text_of(cell)

    def failed(self, source, meanwhile=None):
        """Run a cell that must fail; its error and what it showed as text."""
        with pytest.raises(CellExecutionError) as caught:
            self.run(source, meanwhile)
        return caught.value, text_of(self.notebook.cells[-1])

    def close(self):
        family = [*self.kernel.children(recursive=True), self.kernel]
        try:
            self._loop.run_until_complete(self._setup.__aexit__(None, None, None))
            _, alive = psutil.wait_procs(family, timeout=15)
        finally:
            for process in family:
                if process.is_running():
                    process.kill()
            self._loop.close()
        return alive


def text_of(cell):
    """Everything a cell shows, as text with plain spaces."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ]
    text = "\n".join(parts)
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")
