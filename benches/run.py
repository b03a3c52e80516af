"""Speed beside plain alternatives, as ratios of one run: `make bench`.

Uses the `lakeforge` on PATH, an embedded workspace in a temporary folder and the examples of this
repository. Prints medians; reads and writes nothing outside its folder.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# End to end on the real service, as a published report measured it (2026-04-30), in seconds.
REPORTED_BRANCH, REPORTED_RESTORE = 1.09, 3.78


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lakeforge-bench-"))
    folder.chmod(0o711)
    os.environ["LAKEFORGE_LOCAL_DIR"] = str(folder / "workspace")
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        del os.environ[name]
    try:
        cold_starts(folder)
        lakeforge("local", "start", "--port", "0")
        branches(folder)
        apps(folder)
    finally:
        subprocess.run(["lakeforge", "-q", "local", "stop"], stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def cold_starts(folder: Path) -> None:
    single = copy("single", folder)
    lakeforge("gen", cwd=single)
    shell = median(50, lambda: run(["sh", "-c", "true"]))
    version = median(50, lambda: run(["lakeforge", "--version"]))
    gen = median(50, lambda: run(["lakeforge", "-q", "gen"], cwd=single))
    heading("Cold start (median of 50)")
    row("sh -c true", shell)
    row("lakeforge --version", version, f"{version / shell:.1f} x sh")
    row("lakeforge gen", gen, f"{gen / shell:.1f} x sh")


def branches(folder: Path) -> None:
    bench = folder / "bench"
    bench.mkdir()
    (bench / "databricks.yml").write_text(
        "bundle: {name: bench}\ntargets: {local: {default: true, workspace: {profile: local}}}\n"
        "include: [resources/*.yml]\n"
    )
    (bench / "lakeforge.yml").write_text("projects: {bench: {branches: [dev]}}\nbranch: {ttl: 1d}\n")
    lakeforge("gen", cwd=bench)
    lakeforge("deploy", cwd=bench)
    pgbench = Path(postgres_bin()) / "pgbench"
    sql("bench/production", [str(pgbench), "-i", "-q", "-s", "4"], bench)
    size = sql("bench/production", ["psql", "-Atqc", "select pg_database_size(current_database())"], bench)
    load = subprocess.Popen(
        ["lakeforge", "-q", "creds", "exec", "bench/production", "--", str(pgbench), "-n", "-c", "1", "-T", "60", "-R", "100"],
        cwd=bench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    time.sleep(12)
    created = median(5, numbered(lambda n: lakeforge("branch", "create", f"b{n}", "--project", "bench", cwd=bench)))
    restored = median(5, numbered(lambda n: lakeforge("branch", "restore", f"r{n}", "--at", "10 seconds ago", "--project", "bench", cwd=bench)))
    load.terminate()
    load.wait()
    server = Path(postgres_bin())
    template = median(3, numbered(lambda n: sql(
        "bench/b1", [str(server / "createdb"), "-T", "databricks_postgres", "--maintenance-db", "postgres", f"copy{n}"], bench)))
    heading(f"Branch of a {int(size) / 1e6:.0f} MB database under write load, until its first query (median of 5)")
    row("lakeforge branch create", created, f"{created / REPORTED_BRANCH:.2f} x the real service's reported {REPORTED_BRANCH} s")
    row("lakeforge branch restore (10 s ago)", restored, f"{restored / REPORTED_RESTORE:.2f} x the real service's reported {REPORTED_RESTORE} s")
    row("createdb -T (no load, no past)", template, f"{template / created:.2f} x branch create")


def apps(folder: Path) -> None:
    clinic = copy("clinic", folder)
    lakeforge("gen", cwd=clinic)
    lakeforge("deploy", cwd=clinic)
    start = time.perf_counter()
    events = lakeforge("-o", "json", "deploy", cwd=clinic)
    total = time.perf_counter() - start
    outcomes = [json.loads(line) for line in events.splitlines()]
    slowest = max(outcome["elapsed_ms"] for outcome in outcomes if outcome["type"] == "app") / 1000
    heading("Deploying seven apps (once, environments cached)")
    row("lakeforge deploy", total, f"{total / slowest:.2f} x its slowest app")
    row("its slowest app", slowest)


def copy(example: str, folder: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY / "examples" / example, folder / example))


def postgres_bin() -> str:
    """The folder of pgbench and createdb, found where `lakeforge` looks as well."""
    patterns = ["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"]
    folders = [os.environ.get("LAKEFORGE_POSTGRES_BIN", "")]
    folders += sorted((found for pattern in patterns for found in glob.glob(pattern)), reverse=True)
    for folder in folders:
        if Path(folder, "pgbench").is_file():
            return folder
    sys.exit("pgbench was not found; set LAKEFORGE_POSTGRES_BIN")


def sql(branch: str, command: list[str], cwd: Path) -> str:
    return lakeforge("creds", "exec", branch, "--", *command, cwd=cwd)


def lakeforge(*arguments: str, cwd: Path | None = None) -> str:
    return run(["lakeforge", "-q", *arguments], cwd)


def run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def numbered(work):
    count = 0

    def next_one() -> None:
        nonlocal count
        count += 1
        work(count)

    return next_one


def median(times: int, work) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def heading(text: str) -> None:
    print(f"\n{text}")


def row(name: str, seconds: float, ratio: str = "") -> None:
    print(f"  {name:<36} {seconds * 1000:9.1f} ms   {ratio}", flush=True)


if __name__ == "__main__":
    main()
