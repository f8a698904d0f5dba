"""What live views cost: real ranks at a given rate, all views open in a real JupyterLab.

``python tests/rates.py [ROUNDS_PER_SECOND] [SECONDS]`` (1000 and 10) starts 4 ranks, opens the
dashboard, lets a cell run at that rate, and prints how often each view was redrawn, what the kernel
and the browser's main thread took of a core, for what part of the time that thread's tasks were
open (on a busy machine others run meanwhile), how fast the ranks really went, and how many events
were lost. The aims are 20 redraws a second, 15 % and 30 %.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import lab
import psutil

RANKS = 4
SETUP = f"%load_ext ifog\n%bf start -n {RANKS}"
CELL = """%%bf
import time
bf.set_topology(bf.ring(bf.size()))
x = torch.full((100,), float(bf.rank()), dtype=torch.float64)
begin = time.perf_counter()
rounds = 0
while rounds < {rounds}:
    x = bf.neighbor_allreduce(x, name="x")
    rounds += 1
    if rounds % 20 == 0: bf.log(loss=1 / rounds + 0.01 * bf.rank(), samples=640)
    ahead = begin + rounds / {rate} - time.perf_counter()
    if ahead > 0: time.sleep(ahead)
if bf.rank() == 0: print(f"{{rounds / (time.perf_counter() - begin):.0f}} rounds/s")"""
ASK = "print(bf_dashboard.bar.state['lost'] or 'no event lost')"
DRAWS = """() => Object.fromEntries([...document.querySelectorAll('.ifog-panel')].map(panel =>
    [panel.dataset.view, Number(panel.dataset.draws ?? 0)]))"""


def kernel_of(server):
    """The process of the only kernel."""
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "ipykernel_launcher" in words and str(server.folder.parent) in words:
            return process
    raise RuntimeError("the kernel was not found")


def busy(session):
    """Seconds the browser's main thread has worked, and the time of that."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    found = {metric["name"]: metric["value"] for metric in metrics}
    return found["TaskDuration"], found["Timestamp"]


def main_threads():
    """Processor seconds of the main thread of each process that draws pages."""
    drawing = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "--type=renderer" in " ".join(process.info["cmdline"] or [])
    ]
    return {pid: nanoseconds(pid) / 1e9 for pid in drawing}


def nanoseconds(pid):
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def measure(notebook, process, seconds):
    """Redraws by view, and the shares of a core, over some seconds of a running cell."""
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    draws, work, start = notebook.page.evaluate(DRAWS), busy(session), time.perf_counter()
    before, taken = sum(process.cpu_times()[:2]), main_threads()
    notebook.page.wait_for_timeout(1000 * seconds)
    kernel = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - start)
    drawing = max(now - taken[pid] for pid, now in main_threads().items() if pid in taken)
    later, done = notebook.page.evaluate(DRAWS), busy(session)
    span = done[1] - work[1]
    rates = {name: (later[name] - draws.get(name, 0)) / span for name in later}
    return rates, kernel, drawing / span, (done[0] - work[0]) / span


def main():
    """Measure once and print it."""
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    cells = [SETUP, "%bf dashboard", CELL.format(rounds=rate * (seconds + 4), rate=rate), ASK]
    with tempfile.TemporaryDirectory() as place, lab.browser() as program:
        folder, home = Path(place) / "notebooks", Path(place) / "home"
        folder.mkdir()
        home.mkdir()
        lab.write_notebook(folder / "page.ipynb", cells)
        with (
            lab.lab(folder, home) as server,
            lab.opened(program, server, "page.ipynb", height=2800) as notebook,
        ):
            ended = "i => /\\d/.test(document.querySelectorAll('.jp-InputPrompt')[i].textContent)"
            for index in (0, 1):
                notebook.run_cell(index)
                notebook.wait(f"cell {index} to end", ended, index, timeout=90)
            process = kernel_of(server)
            notebook.run_cell(2)
            notebook.wait("the run", "() => !!document.querySelector('.bar-compute')")
            notebook.page.wait_for_timeout(1500)
            redraws, kernel, drawing, open_tasks = measure(notebook, process, seconds)
            notebook.wait("the cell to end", ended, 2, timeout=600)
            notebook.run_cell(3)
            notebook.wait("the last cell to end", ended, 3)
            said = notebook.page.locator(".jp-OutputArea-output").all_inner_texts()
    print(f"{RANKS} ranks, {rate} rounds/s asked for, all views open, {seconds} s:")
    print(*(f"  {name:<11}{each:5.1f} redraws/s" for name, each in redraws.items()), sep="\n")
    most, total = max(redraws.values()), sum(redraws.values())
    print(f"  all views  {total:5.1f} redraws/s, the fastest {most:.1f}")
    print(f"  kernel     {100 * kernel:5.1f} % of a core")
    print(f"  browser    {100 * drawing:5.1f} % of a core by its main thread", end="")
    print(f", whose tasks were open {100 * open_tasks:.1f} % of the time")
    print(
        "  said:",
        *(
            line
            for text in said
            for line in text.splitlines()
            if "lost" in line or "rounds/s" in line
        ),
    )


if __name__ == "__main__":
    main()
