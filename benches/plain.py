"""A plain PostgreSQL server, and how its data is copied without `lakeforge`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path


class Plain:
    """A server of its own with a pgbench database, which ends with the block."""

    def __init__(self, folder: Path, server: Path, scale: int) -> None:
        self.folder, self.server, self.scale = folder, server, scale
        self.running: list[Path] = []

    def __enter__(self) -> Plain:
        self.folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        self.run("initdb", "-D", data, "-N", "-U", "postgres", "-A", "trust")
        self.start(data, 1)
        self.run("createdb", *self.at(1), "bench")
        self.run("pgbench", *self.at(1), "-i", "-q", "-s", self.scale, "bench")
        return self

    def __exit__(self, *_: object) -> None:
        for data in list(self.running):
            self.stop(data)
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def load(self):
        command = self.command("pgbench", *self.at(1), "-n", "-c", "1", "-T", "3000", "-R", "100", "bench")
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            load.terminate()
            load.wait()

    def base_backup(self, number: int) -> None:
        """Copies the whole server and starts the copy."""
        data, port = self.folder / f"copy{number}", number + 1
        self.run("pg_basebackup", *self.at(1), "-D", data, "-c", "fast", "-X", "stream")
        self.start(data, port)
        self.run("psql", *self.at(port), "-Atqc", "select count(*) from pgbench_branches", "bench")

    def template(self, number: int) -> None:
        """Copies the database within the server."""
        self.run("createdb", *self.at(1), "-T", "bench", f"copy{number}")
        self.run("psql", *self.at(1), "-Atqc", "select count(*) from pgbench_branches", f"copy{number}")

    def dump(self) -> None:
        """Copies the database as SQL."""
        self.run("createdb", *self.at(1), "dumped")
        dump = subprocess.Popen(self.command("pg_dump", *self.at(1), "bench"), stdout=subprocess.PIPE)
        load = self.command("psql", *self.at(1), "-q", "-o", "/dev/null", "dumped")
        subprocess.run(load, stdin=dump.stdout, check=True)
        dump.wait()

    def start(self, data: Path, port: int) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c port={port}"
        self.run("pg_ctl", "-D", data, "-w", "-o", options, "-l", self.folder / f"log{port}", "start")
        self.running.append(data)

    def stop(self, data: Path) -> None:
        self.run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        self.running.remove(data)

    def at(self, port: int) -> list[str]:
        return ["-h", str(self.folder), "-p", str(port), "-U", "postgres"]

    def command(self, program: str, *arguments: object) -> list[str]:
        # PostgreSQL does not run as root.
        other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*other, str(self.server / program), *map(str, arguments)]

    def run(self, program: str, *arguments: object) -> None:
        # To a file of its own: a server that is started keeps what it inherits open.
        done = subprocess.run(
            self.command(program, *arguments), cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL, text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{program} ended with {done.returncode}:\n{done.stderr}")
