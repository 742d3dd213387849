"""The small parts of a local start: the lock, the bootstrap, the environment, child processes, Kafka's errors."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from alembic.script import ScriptDirectory

from deploy.local import environment
from deploy.local.child import Child
from deploy.local.chromium import ensure_chromium
from deploy.local.errors import AlreadyRunning, MissingProgram
from deploy.local.java import ensure_java
from deploy.local.kafka import KafkaServer, fetch
from deploy.local.lock import locked
from deploy.local.nursery import ROOT, Nursery
from deploy.local.revisions import PACKAGES, all_at_head, head
from deploy.local.waiting import until


def test_those_that_share_servers_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    """Groups are said by the end of a name, which a pytest newer than pytest-xdist silently ignores."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    assert alone or request.node.nodeid.endswith("@tests/deploy/test_local.py")


def test_a_locked_folder_names_its_holder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(AlreadyRunning, match=str(os.getpid())), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from deploy.local.lock import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(AlreadyRunning, match=str(holder.pid)), locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / "lock").read_text().strip() == str(holder.pid)
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of what the bootstrap reads, and a `.venv` that says it holds the test packages."""
    for name in ("requirements.lock", "requirements-test.lock", "requirements-installer.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "deploy" / "local").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "local" / "bootstrap.sh", tmp_path / "deploy" / "local")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copy(tmp_path / "requirements-test.lock", tmp_path / ".venv" / "installed.lock")
    (tmp_path / ".venv" / "with-tests").touch()
    yield tmp_path


def bootstrap(checkout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "deploy/local/bootstrap.sh", *arguments],
        cwd=checkout,
        env={"PATH": path or os.environ["PATH"], "HOME": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [(), ("--test",)])
def test_a_second_bootstrap_does_nothing(checkout: Path, arguments: tuple[str, ...]) -> None:
    done = bootstrap(checkout, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_lock_is_installed_again(checkout: Path) -> None:
    with (checkout / "requirements-test.lock").open("a") as lock:
        lock.write("# changed\n")
    # Nothing can be installed without network and a real environment; that it tries is what is seen here.
    (checkout / "requirements-installer.lock").write_text("nothing-of-this-name==1 --hash=sha256:00\n")
    done = bootstrap(checkout)
    assert done.returncode != 0
    assert "Installing the locked packages of requirements-test.lock" in done.stdout
    assert not (checkout / ".venv" / "installed.lock").exists()


def test_what_python_compiled_is_kept_for_the_next_process() -> None:
    forbidden = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    shown = subprocess.run(
        ["make", "--eval=shown:; @env", "shown"], cwd=ROOT, env=forbidden, capture_output=True, check=True
    )
    assert b"PATH=" in shown.stdout and b"PYTHONDONTWRITEBYTECODE" not in shown.stdout


def test_without_python_it_says_what_to_type(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("cmp", "dirname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    script = checkout / "deploy" / "local" / "bootstrap.sh"
    script.write_text(re.sub(r"/usr/(local/)?bin/python3.11", "", script.read_text()))
    done = bootstrap(checkout, path=str(programs))
    assert done.returncode == 1
    assert "apt-get install python3.11" in done.stderr


def test_java_that_cannot_be_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match="apt-get install --yes openjdk-17-jre-headless maven"):
        ensure_java()


def test_a_browser_that_cannot_be_installed_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match=r"Chromium or Google Chrome.*apt-get install --yes chromium"):
        ensure_chromium()


async def test_maven_is_not_asked_twice(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert kafka.pid
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (await fetch()).is_dir()


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first = environment.keys(tmp_path)
    assert environment.keys(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    public = json.loads(first["SERVICE_KEYS"])
    assert set(public) == set(environment.SERVICES)
    assert all("d" not in key for key in public.values())


def test_the_operators_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_DATABASE_URL", "postgresql://shop@db.example/orders")
    made = {"ORDERS_DATABASE_URL": "ours", "ORDERS_MIGRATION_DATABASE_URL": "ours", "KEYRING_URL": "ours"}
    complete = environment.complete(made)
    assert complete["ORDERS_DATABASE_URL"] == "postgresql://shop@db.example/orders"
    assert complete["ORDERS_MIGRATION_DATABASE_URL"] == "postgresql://shop@db.example/orders"
    assert complete["KEYRING_URL"] == "ours"
    assert environment.needs_postgres()


def test_a_process_gets_its_own_secrets_only(tmp_path: Path) -> None:
    platform = {
        **environment.keys(tmp_path),
        "ORDERS_DATABASE_URL": "a",
        "ORDERS_MIGRATION_DATABASE_URL": "b",
        "KEYRING_DATABASE_URL": "c",
        "KEYRING_URL": "d",
    }
    own = environment.for_process(platform, ["orders"])
    ours = {name for name in own if name in platform}
    assert ours == {"ORDERS_DATABASE_URL", "ORDERS_SERVICE_KEY", "KEYRING_URL", "SERVICE_KEYS"}


@pytest.fixture(scope="module")
async def nursery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery") / "nursery.log", ("http.server",))
    yield nursery
    await nursery.stop()


@pytest.fixture
def child(nursery: Nursery, tmp_path: Path) -> Iterator[Child]:
    environment = {"PATH": os.environ["PATH"], "ITS_OWN": "words"}
    arguments = ("http.server", "--bind=127.0.0.1", "0")
    child = Child(nursery, "sleeper", *arguments, environment=environment, log=tmp_path / "sleeper.log")
    yield child
    child.kill()


async def test_a_child_is_frozen_killed_and_started_again(child: Child) -> None:
    await child.start()
    first = child.pid
    assert first
    child.pause()

    async def is_frozen() -> bool:
        return psutil.Process(first).status() == psutil.STATUS_STOPPED

    await until(is_frozen, 5, "the child was not frozen")
    child.resume()
    child.kill()
    assert child.pid is None
    await child.restart()
    assert child.pid not in (None, first)


async def test_a_frozen_child_can_still_be_stopped(child: Child) -> None:
    await child.start()
    child.pause()
    await child.stop()
    assert child.pid is None


async def test_a_child_has_its_own_environment_session_and_log(child: Child) -> None:
    await child.start()
    assert child.pid
    assert psutil.Process(child.pid).name() == "sleeper"
    assert os.getsid(child.pid) == child.pid
    assert psutil.Process(child.pid).ppid() != os.getpid()

    async def has_spoken() -> bool:
        return "Serving HTTP" in child.last_words()

    await until(has_spoken, 10, "the child wrote nothing to its log")


async def test_a_nursery_that_died_is_replaced(child: Child) -> None:
    await child.start()
    assert child.pid
    nursery = psutil.Process(child.pid).parent()
    assert nursery
    nursery.kill()
    nursery.wait(10)

    async def has_ended() -> bool:
        return child.pid is None

    await until(has_ended, 10, "the child did not end with its nursery")
    await child.start()
    assert child.pid


@pytest.mark.parametrize("package", PACKAGES.values())
def test_the_head_we_read_is_alembics(package: str) -> None:
    migrations = ROOT / Path(*package.split(".")) / "migrations"
    assert head(package) == ScriptDirectory(str(migrations)).get_current_head()
    assert head(package) is not None


async def test_databases_are_at_head_once_migrated(platform_environment: Mapping[str, str]) -> None:
    assert await all_at_head(platform_environment)
    elsewhere = platform_environment["BROKER_MIGRATION_DATABASE_URL"].replace("vitrine_broker", "postgres")
    assert not await all_at_head({**platform_environment, "BROKER_MIGRATION_DATABASE_URL": elsewhere})
