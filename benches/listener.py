"""What an endpoint's listener costs a query, beside a raw splice, haproxy and pgbouncer where they are installed.

All of them lead to the same compute; `pgbench -S` runs through each in turn, several times over, so
that a busy machine slows all alike. On few cores the rate with sixteen clients depends on the processor
time of a query, so that is shown too: in between, and in the client, whose own TLS nothing in between can
save. Part of `make bench`; alone: `python3 benches/listener.py`.
"""

from __future__ import annotations

import getpass
import glob
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from run import heading, lakeforge, postgres_bin, run

HERE = Path(__file__).resolve().parent
DATABASE = "databricks_postgres"
ROUNDS, SECONDS = int(os.environ.get("ROUNDS", "5")), 3


@dataclass
class Way:
    """One way to the compute, and what was measured on it, a figure for each round."""

    name: str
    environment: dict[str, str]
    process: int | None = None  # what passes the bytes on, if anything does
    middle: list[float] = field(default_factory=list)  # round trip at p50 with one client, µs
    rate: list[float] = field(default_factory=list)  # transactions a second with sixteen
    between: list[float] = field(default_factory=list)  # processor time of `process` for each of those, µs
    client: list[float] = field(default_factory=list)  # the same of pgbench


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lakeforge-listener-"))
    folder.chmod(0o711)
    os.environ["LAKEFORGE_LOCAL_DIR"] = str(folder / "workspace")
    helpers: list[subprocess.Popen] = []
    try:
        ways = prepare(folder, helpers)
        for number in range(ROUNDS):
            # Another order each time: what one leaves behind is not always the same one's burden.
            for way in ways[number % len(ways):] + ways[: number % len(ways)]:
                way.middle.append(round_trip(way, folder))
                throughput(way)
        report(ways)
    finally:
        for helper in helpers:
            helper.terminate()
            helper.wait()
        subprocess.run(["lakeforge", "-q", "local", "stop"], stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path, helpers: list[subprocess.Popen]) -> list[Way]:
    (folder / "databricks.yml").write_text(
        "bundle: {name: bench}\ntargets: {local: {default: true, workspace: {profile: local}}}\n"
        "include: [resources/*.yml]\n"
    )
    (folder / "lakeforge.yml").write_text("projects: [bench]\nbranch: {ttl: 1d}\n")
    lakeforge("local", "start", "--port", "0")
    lakeforge("gen", cwd=folder)
    lakeforge("deploy", cwd=folder)
    lakeforge("creds", "exec", "bench/production", "--", pgbench(), "-i", "-q", "-s", "4", cwd=folder)
    printed = lakeforge("creds", "exec", "bench/production", "--", "env", cwd=folder)
    endpoint = dict(line.split("=", 1) for line in printed.splitlines() if line.startswith("PG"))
    user = endpoint["PGUSER"]
    where = "select current_setting('unix_socket_directories'), current_setting('port')"
    answer = lakeforge("creds", "exec", "bench/production", "--", psql(), "-Atqc", where, cwd=folder)
    sockets, number = answer.strip().split("|")
    path = f"{sockets}/.s.PGSQL.{number}"

    def through(name: str, port: int, **more: str) -> Way:
        environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": user, "PGSSLMODE": "disable", **more}
        return Way(name, environment, helpers[-1].pid)

    server = json.loads((folder / "workspace" / "server.json").read_text())["pid"]
    ways = [
        Way("compute, Unix socket", {"PGHOST": sockets, "PGPORT": number, "PGUSER": user}),
        through("raw splice", splice(folder, path, helpers)),
        Way("endpoint (TLS, checked login)", endpoint, server),
    ]
    if shutil.which("haproxy"):
        ways.append(through("haproxy", haproxy(folder, path, helpers)))
        # It knows nothing of Postgres, so its clients must begin with TLS: possible from version 17 on.
        if shutil.which("openssl") and client_version() >= 17:
            port = haproxy(folder, path, helpers, tls=True)
            ways.append(through("haproxy (TLS)", port, PGSSLMODE="require", PGSSLNEGOTIATION="direct"))
    if shutil.which("pgbouncer"):
        ways.append(through("pgbouncer", pgbouncer(folder, sockets, number, user, helpers)))
        if shutil.which("openssl"):
            port = pgbouncer(folder, sockets, number, user, helpers, tls=True)
            ways.append(through("pgbouncer (TLS)", port, PGSSLMODE="require"))
    for way in ways:
        wait_for(way)
    return ways


def splice(folder: Path, path: str, helpers: list[subprocess.Popen]) -> int:
    program = folder / "splice"
    run(["rustc", "-O", "-o", str(program), str(HERE / "listener" / "splice.rs")])
    helper = subprocess.Popen([str(program), path], stdout=subprocess.PIPE, text=True)
    helpers.append(helper)
    return int(helper.stdout.readline())


def haproxy(folder: Path, path: str, helpers: list[subprocess.Popen], tls: bool = False) -> int:
    port = free_port()
    place = folder / f"haproxy-{port}"
    place.mkdir()
    secure = ""
    if tls:
        key, proof = certificate(place)
        (place / "both").write_text(proof.read_text() + key.read_text())
        secure = f" ssl crt {place}/both alpn postgresql"
    settings = place / "haproxy.cfg"
    settings.write_text(
        f"defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen postgres\n  bind 127.0.0.1:{port}{secure}\n  server compute unix@{path}\n"
    )
    helpers.append(subprocess.Popen(["haproxy", "-q", "-db", "-f", str(settings)]))
    return port


def pgbouncer(
    folder: Path, sockets: str, number: str, user: str, helpers: list[subprocess.Popen], tls: bool = False
) -> int:
    port = free_port()
    place = folder / f"pgbouncer-{port}"
    place.mkdir()
    settings = place / "pgbouncer.ini"
    text = (
        f"[databases]\n{DATABASE} = host={sockets} port={number}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = trust\npool_mode = session\nmax_client_conn = 100\ndefault_pool_size = 50\n"
        f"auth_file = {place}/users\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n"
    )
    (place / "users").write_text(f'"{user}" ""\n')
    if tls:
        key, proof = certificate(place)
        text += f"client_tls_sslmode = require\nclient_tls_key_file = {key}\nclient_tls_cert_file = {proof}\n"
    settings.write_text(text)
    command = ["pgbouncer", "-q", str(settings)]
    if getpass.getuser() == "root":
        # It refuses to run as root, and the compute's socket is for its own user.
        subprocess.run(["chown", "-R", "postgres", str(place)], check=True)
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    helpers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    return port


def certificate(place: Path) -> tuple[Path, Path]:
    """Makes a key and a certificate of its own in `place`."""
    key, proof = place / "key", place / "certificate"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(proof)])
    return key, proof


def wait_for(way: Way) -> None:
    limit = time.monotonic() + 30
    while subprocess.run([psql(), "-Atqc", "select 1", DATABASE], env=environment(way), capture_output=True).returncode:
        if time.monotonic() > limit:
            run_in(way, [psql(), "-Atqc", "select 1", DATABASE])
        time.sleep(0.1)


def round_trip(way: Way, folder: Path) -> float:
    """Returns the median time of a transaction of one client, in microseconds."""
    place = Path(tempfile.mkdtemp(dir=folder))
    run_in(way, [pgbench(), "-n", "-S", "-c", "1", "-T", str(SECONDS), "-l", f"--log-prefix={place}/log", DATABASE])
    lines = [line for log in glob.glob(f"{place}/log*") for line in Path(log).read_text().splitlines()]
    shutil.rmtree(place)
    return statistics.median(int(line.split()[2]) for line in lines)


def throughput(way: Way) -> None:
    """Notes the rate with sixteen clients, and what processor time a query took in between and in the client."""
    before, own = cpu_seconds(way.process), client_seconds()
    said = run_in(way, [pgbench(), "-n", "-S", "-c", "16", "-j", "2", "-T", str(SECONDS), DATABASE])
    after, count = cpu_seconds(way.process), float(printed_after(said, "number of transactions actually processed: "))
    way.rate.append(float(printed_after(said, "tps = ")))
    way.client.append((client_seconds() - own) / count * 1e6)
    if before is not None and after is not None:
        way.between.append((after - before) / count * 1e6)


def printed_after(said: str, label: str) -> str:
    """Returns the number that pgbench prints after `label`, where it may stand as `done/asked`."""
    line = next(line for line in said.splitlines() if line.startswith(label))
    return line.removeprefix(label).split()[0].split("/")[0]


def cpu_seconds(process: int | None) -> float | None:
    """Returns the processor time that a process has taken, where the system tells."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def client_seconds() -> float:
    """Returns the processor time of all programs that were run to their end."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def report(ways: list[Way]) -> None:
    direct, raw = ways[0], ways[1]
    heading(f"A query through the endpoint's listener (pgbench -S; medians of {ROUNDS} rounds)")
    print(f"  {'':<31}{'1 client, p50':>15}{'added':>10}{'of splice':>11}{'16 clients':>14}{'of splice':>11}"
          f"{'CPU between':>14}{'in client':>11}")
    for way in ways:
        added = statistics.median(one - other for one, other in zip(way.middle, direct.middle))
        speed = statistics.median(other / one for one, other in zip(way.middle, raw.middle))
        rate = statistics.median(one / other for one, other in zip(way.rate, raw.rate))
        between = f"{statistics.median(way.between):.1f} µs" if way.between else ""
        client = f"{statistics.median(way.client):.1f} µs"
        print(f"  {way.name:<31}{statistics.median(way.middle):>12.0f} µs{added:>7.0f} µs{speed:>10.2f}x"
              f"{statistics.median(way.rate):>10.0f} tps{rate:>10.2f}x{between:>14}{client:>11}", flush=True)


def run_in(way: Way, command: list[str]) -> str:
    done = subprocess.run(command, env=environment(way), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{way.name}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def environment(way: Way) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, **way.environment}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def client_version() -> int:
    """Returns the major version of pgbench, which prints `pgbench (PostgreSQL) 17.2`."""
    said = subprocess.run([pgbench(), "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].split(".")[0])


def pgbench() -> str:
    return str(Path(postgres_bin()) / "pgbench")


def psql() -> str:
    return str(Path(postgres_bin()) / "psql")


if __name__ == "__main__":
    main()
