"""Time and memory of `lakeforge gen`, beside a script with PyYAML that makes the same resources."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "generate.py"
BRANCHES = ["dev", "test", "staging", "load", "demo"]
# What `gen` promises: a whole process for one project, and 1,000 projects with five branches each.
PROMISED_ONE_MS, PROMISED_MANY_MS, PROMISED_MANY_MB = 10, 200, 100


def generation(folder: Path) -> None:
    python = python_with_yaml(folder)
    many = [f"service-{number}" for number in range(1000)]
    print("\nGenerating resources (median of 20; of 5 for 1,000 projects)")
    one = measure(folder / "one", python, ["shop"], ["dev"], 20)
    all_of_them = measure(folder / "many", python, many, BRANCHES, 5)
    verdict("one project", one, PROMISED_ONE_MS)
    verdict("1,000 projects x 5 branches", all_of_them, PROMISED_MANY_MS, PROMISED_MANY_MB)


def measure(folder: Path, python: str | None, projects: list[str], branches: list[str], times: int):
    folder.mkdir()
    (folder / "databricks.yml").write_text("bundle: {name: bench}\ninclude: [resources/*.yml]\n")
    listed = ", ".join(branches)
    lines = "".join(f"  {project}: {{branches: [{listed}]}}\n" for project in projects)
    (folder / "lakeforge.yml").write_text(f"projects:\n{lines}")
    ours = spent(["lakeforge", "-q", "gen", "--stdout"], folder, times)
    if python is None:
        return ours, None
    script = [python, str(SCRIPT), ",".join(projects), ",".join(branches), "script.yml"]
    return ours, spent(script, folder, times)


def spent(command: list[str], folder: Path, times: int) -> tuple[float, float]:
    """Median milliseconds of the process, and the most memory it held, in MB."""
    taken, held = [], 0.0
    for _ in range(times):
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        taken.append((time.perf_counter() - start) * 1000)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {child.returncode}")
        held = max(held, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
    return statistics.median(taken), held


def verdict(what: str, measured, most_ms: float, most_mb: float | None = None) -> None:
    (ours_ms, ours_mb), script = measured
    promised = f"promised {most_ms} ms" + (f", {most_mb} MB" if most_mb else "")
    print(f"  {'lakeforge gen, ' + what:<44} {ours_ms:9.1f} ms {ours_mb:7.0f} MB   {promised}")
    if script is None:
        print(f"  {'PyYAML script, ' + what:<44}    absent: PyYAML could not be installed")
        return
    ms, mb = script
    print(f"  {'PyYAML script, ' + what:<44} {ms:9.1f} ms {mb:7.0f} MB   {ms / ours_ms:.1f} x lakeforge", flush=True)


def python_with_yaml(folder: Path) -> str | None:
    """This Python when it has PyYAML, else one of a virtual environment in `folder`, else nothing."""
    has_yaml = [sys.executable, "-c", "import yaml"]
    if subprocess.run(has_yaml, capture_output=True).returncode == 0:
        return sys.executable
    python = folder / "venv/bin/python"
    for command in [
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [str(python), "-m", "pip", "install", "-q", "pyyaml"],
    ]:
        try:
            if subprocess.run(command, capture_output=True, timeout=120).returncode != 0:
                return None
        except (OSError, subprocess.TimeoutExpired):
            return None
    return str(python)
