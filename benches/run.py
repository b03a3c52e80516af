"""Speed beside plain alternatives, as ratios of one run: `make bench`.

Uses the `lakeforge` on PATH, an embedded workspace in a temporary folder and the examples of this
repository. Prints medians; reads and writes nothing outside its folder. With `--big` also databases of
1 GB and 5 GB, fifty branches at once and a workspace of 10,000 branches, which takes long and 60 GB.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import configparser
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from gen import generation
from plain import Plain

REPOSITORY = Path(__file__).resolve().parent.parent
# End to end on the real service, as a published report measured it (2026-04-30), in seconds.
REPORTED_BRANCH, REPORTED_RESTORE = 1.09, 3.78


def main() -> None:
    arguments = argparse.ArgumentParser(description="Speed beside plain alternatives.")
    arguments.add_argument("--big", action="store_true", help="also what takes long and much room")
    big = arguments.parse_args().big
    folder = Path(tempfile.mkdtemp(prefix="lakeforge-bench-"))
    folder.chmod(0o711)
    os.environ["LAKEFORGE_LOCAL_DIR"] = str(folder / "workspace")
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        del os.environ[name]
    try:
        cold_starts(folder)
        generation(folder)
        lakeforge("local", "start", "--port", "0")
        branches(folder, "small", scale=4, times=5, long=big)
        if big:
            branches(folder, "gigabyte", scale=66, times=3)
            branches(folder, "large", scale=333, times=2)
            many_at_once("small", 50)
        apps(folder)
        many_branches("small", 10_000 if big else 100)
    finally:
        subprocess.run(["lakeforge", "-q", "local", "stop"], stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, str(REPOSITORY / "benches" / "listener.py")], check=True)


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


def branches(folder: Path, project: str, scale: int, times: int, long: bool = False) -> None:
    bench = folder / project
    bench.mkdir()
    (bench / "databricks.yml").write_text(
        f"bundle: {{name: {project}}}\ntargets: {{local: {{default: true, workspace: {{profile: local}}}}}}\n"
        "include: [resources/*.yml]\n"
    )
    (bench / "lakeforge.yml").write_text(f"projects: [{project}]\nbranch: {{ttl: 1d}}\n")
    lakeforge("gen", cwd=bench)
    lakeforge("deploy", cwd=bench)
    source, server = f"{project}/production", Path(postgres_bin())
    pgbench = str(server / "pgbench")
    sql(source, [pgbench, "-i", "-q", "-s", str(scale)], bench)
    size = sql(source, ["psql", "-Atqc", "select pg_database_size(current_database())"], bench)
    load = subprocess.Popen(
        ["lakeforge", "-q", "creds", "exec", source, "--", pgbench, "-n", "-c", "1", "-T", "3000", "-R", "100"],
        cwd=bench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    begun = time.monotonic()
    time.sleep(15)
    # The first one also says how a branch goes that nothing was made ready for.
    first = median(1, lambda: lakeforge("branch", "create", "first", "--project", project, cwd=bench))
    time.sleep(10)
    created = spaced(times, lambda n: lakeforge("branch", "create", f"b{n}", "--project", project, cwd=bench))
    restored = spaced(times, lambda n: lakeforge(
        "branch", "restore", f"r{n}", "--at", "10 seconds ago", "--project", project, cwd=bench))
    old = None
    if long:
        time.sleep(max(0.0, begun + 620 - time.monotonic()))
        old = spaced(3, lambda n: lakeforge(
            "branch", "restore", f"o{n}", "--at", "10 minutes ago", "--project", project, cwd=bench))
    load.terminate()
    load.wait()
    woken = statistics.median([wake(project, bench) for _ in range(times)])
    names = ["first", *(f"{kind}{n}" for kind in "br" for n in range(1, times + 1))]
    for name in names + ([f"o{n}" for n in range(1, 4)] if long else []):
        request("DELETE", f"/api/2.0/postgres/projects/{project}/branches/{name}?purge=true")
    heading(f"Branch of a {int(size) / 1e6:.0f} MB database under write load, until its first query (median of {times})")
    row("lakeforge branch create", created, f"{created / REPORTED_BRANCH:.2f} x the real service's reported {REPORTED_BRANCH} s")
    row("lakeforge branch create, the first", first, f"{first / created:.2f} x branch create")
    row("lakeforge branch restore (10 s ago)", restored, f"{restored / REPORTED_RESTORE:.2f} x the real service's reported {REPORTED_RESTORE} s")
    if old:
        row("lakeforge branch restore (10 min ago)", old, f"{old / restored:.2f} x ten seconds ago")
    row("connecting to a suspended branch", woken, "without load")
    with Plain(folder / f"plain-{project}", server, scale) as plain:
        with plain.load():
            backup = spaced(min(times, 3), plain.base_backup)
        dump = median(1, plain.dump)
        template = spaced(min(times, 3), plain.template)
    row("pg_basebackup and start", backup, f"{backup / created:.2f} x branch create")
    row("createdb -T (no load, no past)", template, f"{template / created:.2f} x branch create")
    row("pg_dump | psql (no load, no past)", dump, f"{dump / created:.2f} x branch create")


def spaced(times: int, work) -> float:
    """Returns the median of runs that leave the machine a moment between them, as people do."""
    taken = []
    for number in range(1, times + 1):
        taken.append(median(1, lambda: work(number)))
        time.sleep(3)
    return statistics.median(taken)


def wake(project: str, cwd: Path) -> float:
    body = {"compute": {"suspend": f"projects/{project}/branches/production"}}
    request("POST", "/lakeforge/faults", body)
    return median(1, lambda: sql(f"{project}/production", ["psql", "-Atqc", "select 1"], cwd))


def many_at_once(project: str, count: int) -> None:
    def create(number: int) -> None:
        path = f"/api/2.0/postgres/projects/{project}/branches?branch_id=m{number}"
        name = request("POST", path, {"spec": {"ttl": "3600s"}})["name"]
        while not (operation := request("GET", f"/api/2.0/postgres/{name}")).get("done"):
            time.sleep(0.1)
        if "error" in operation:
            sys.exit(f"branch m{number}: {operation['error']}")

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(create, range(count)))
    total = time.perf_counter() - start
    heading(f"{count} branches of one project at once")
    row("all of them", total, f"{total / count * 1000:.0f} ms each")


def many_branches(project: str, count: int) -> None:
    """Measures a workspace whose state holds many branches; their clusters are never started."""
    lakeforge("local", "stop")
    data = Path(os.environ["LAKEFORGE_LOCAL_DIR"])
    folder = data / "objects" / "branches"
    records = [(path, json.loads(path.read_text())) for path in folder.glob("*.json")]
    whole = (project, "production")
    path, record = next(found for found in records if (found[1]["project"], found[1]["id"]) == whole)
    cluster = data / "postgres" / "clusters" / path.stem / "cluster.json"
    for number in range(count):
        uid = f"br-bench-{number:08}"
        endpoints = [
            {**endpoint, "uid": f"ep-bench-{number:08}", "address": None} for endpoint in record["endpoints"]
        ]
        copied = {**record, "uid": uid, "id": f"n{number}", "endpoints": endpoints}
        (folder / f"{uid}.json").write_text(json.dumps(copied))
        copy_of = data / "postgres" / "clusters" / uid
        copy_of.mkdir()
        shutil.copy(cluster, copy_of / "cluster.json")
    lakeforge("local", "start")
    lakeforge("local", "stop")
    started = median(1, lambda: lakeforge("local", "start"))
    branches = f"/api/2.0/postgres/projects/{project}/branches"
    heading(f"A workspace of {count} branches")
    row("lakeforge local start", started)
    for name, path in [("list, a page of 100", f"{branches}?page_size=100"), ("get", f"{branches}/n{count // 2}")]:
        taken = sorted(median(1, lambda path=path: request("GET", path)) for _ in range(300))
        row(f"REST {name}, median", taken[150])
        row(f"REST {name}, 99th percentile", taken[297])


def request(method: str, path: str, body: dict | None = None) -> dict:
    """Asks the embedded workspace as its administrator."""
    host, token = administrator()
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(host + path, data, {"Authorization": f"Bearer {token}"}, method=method)
    with urllib.request.urlopen(asked) as answer:
        return json.loads(answer.read() or b"{}")


_TOKENS: dict[str, str] = {}


def administrator() -> tuple[str, str]:
    profiles = configparser.ConfigParser()
    profiles.read(Path(os.environ["LAKEFORGE_LOCAL_DIR"]) / "databrickscfg")
    local = profiles["local"]
    if local["host"] not in _TOKENS:
        form = {"grant_type": "client_credentials", "client_id": local["client_id"], "client_secret": local["client_secret"]}
        with urllib.request.urlopen(f"{local['host']}/oidc/v1/token", urllib.parse.urlencode(form).encode()) as answer:
            _TOKENS[local["host"]] = json.loads(answer.read())["access_token"]
    return local["host"], _TOKENS[local["host"]]


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
