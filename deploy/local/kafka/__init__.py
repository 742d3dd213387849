"""A real Apache Kafka on this machine: one KRaft node, fetched by Maven, without Docker."""

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient  # pyright: ignore[reportMissingTypeStubs]
from aiokafka.errors import KafkaError  # pyright: ignore[reportMissingTypeStubs]

from deploy.local.errors import AlreadyRunning, DiskFull, PortTaken, StartError
from deploy.local.java import ensure_java
from deploy.local.ports import free_port, is_free
from deploy.local.process import ended, spawn, stop
from deploy.local.waiting import until

START_WITHIN = 60
FETCH_WITHIN = 600
_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
_CLASSES = "classes.jsa"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Members may ask to be missed after less than six seconds, which tests of faults do.
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
# A node that was killed may return at once: the controller forgets its old registration after two seconds.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""


def _quickly(jars: Path) -> tuple[str, ...]:
    """For what lives for minutes at most: it never wins back what optimising it takes, nor what reading classes does.

    Without the file, and with that of another Java, it starts as it would without the option.
    """
    return "-XX:TieredStopAtLevel=1", f"-XX:SharedArchiveFile={jars / _CLASSES}"


def libraries() -> Path:
    """Where Kafka's jars are kept between runs: `.vitrine/kafka-libs`, or the folder `KAFKA_LIBS` names."""
    return Path(os.environ.get("KAFKA_LIBS", ".vitrine/kafka-libs")).absolute()


async def fetch() -> Path:
    """Fetch Kafka's jars with Maven unless they are there, and return their folder.

    Raises MissingProgram without Java and Maven, StartError when Maven fails.
    """
    folder = libraries()
    stamp = folder / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    if stamp.exists():
        return folder
    ensure_java()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not stamp.exists():
            await _fetch_into(folder, stamp.name)
    return folder


async def _fetch_into(folder: Path, stamp: str) -> None:
    new = folder.with_name(folder.name + ".new")
    for leftover in (new, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    maven = await asyncio.create_subprocess_exec(
        *("mvn", "--quiet", "--batch-mode", "--strict-checksums", "--file", str(_POM)),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={new}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(FETCH_WITHIN):
        words, _ = await maven.communicate()
    if maven.returncode:
        raise StartError(f"Maven could not fetch Apache Kafka:\n{words.decode(errors='replace')[-2000:]}")
    (new / stamp).touch()
    new.rename(folder)


async def keep_classes(folder: Path) -> None:
    """Run a node in a throw-away folder once, and keep its classes as they lay in memory (JEP 350).

    Nodes that are `fast` begin with them, in half the time. Raises what `KafkaServer.start` does.
    """
    classes = await fetch() / _CLASSES
    if not classes.exists():
        new = classes.with_suffix(".new")
        server = KafkaServer(folder, classes_at_exit=new)
        await server.start()
        await server.stop()
        new.rename(classes)


class KafkaServer:
    """One Apache Kafka node on 127.0.0.1, its data and log in the folder `data`. A restart keeps the port.

    With `proxy_port` a second listener at `proxied_port` sends its clients to `proxy_port`, where a fault
    proxy forwards to `proxied_port`; without it clients pass by the proxy after the first answer. `fast`, for tests,
    starts with less work, and reaches less speed. `classes_at_exit` is a file for the classes it has loaded.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        proxy_port: int | None = None,
        fast: bool = False,
        classes_at_exit: Path | None = None,
    ) -> None:
        self.data = data.absolute()
        self.log = self.data / "kafka.log"
        self.fast = fast
        self.proxy_port = proxy_port
        self.classes_at_exit = classes_at_exit
        self._chosen_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def port(self) -> int:
        """Where clients connect; known once the server was started."""
        return self._ports["port"]

    @property
    def proxied_port(self) -> int:
        """Where the fault proxy connects."""
        return self._ports["proxied"]

    @property
    def bootstrap_servers(self) -> str:
        """The value of `KAFKA_BOOTSTRAP_SERVERS`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the Java process, None when it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def is_running_elsewhere(self) -> bool:
        """Whether another process has started the node of this folder."""
        if self.pid is not None or not (self.data / "ports.json").exists():
            return False
        self._choose_ports()
        return not is_free(self.port)

    async def start(self) -> None:
        """Fetch and format what is missing, start the node and wait until it answers.

        Raises PortTaken, AlreadyRunning, DiskFull, MissingProgram, StartError.
        """
        if self.pid is not None:
            return
        jars = await fetch()
        self.data.mkdir(parents=True, exist_ok=True)
        self._choose_ports()
        properties = self._write_properties()
        if not (self.data / "logs" / "meta.properties").exists():
            await self._format(jars, properties)
        for port in self._ports.values():
            if not is_free(port):
                raise PortTaken(port)
        begin = self.log.stat().st_size
        self._process = self._java(jars, *self._options(jars), "kafka.Kafka", str(properties))
        await until(lambda: self._is_ready(begin), START_WITHIN, "Apache Kafka did not start")

    async def stop(self) -> None:
        """An orderly end: what is in memory is written."""
        if self._process is not None:
            await stop(self._process, within=30)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def restart(self) -> None:
        """Stop in order if it runs, and start on the same port."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _choose_ports(self) -> None:
        """The controller's port is part of the formatted data: ports are chosen once and kept beside it."""
        file = self.data / "ports.json"
        if not self._ports:
            kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
            chosen = {} if self._chosen_port is None else {"port": self._chosen_port}
            new = {name: free_port() for name in ("port", "controller", "proxied")}
            self._ports = new | kept | chosen
        file.write_text(json.dumps(self._ports))

    def _write_properties(self) -> Path:
        listeners = [f"PLAINTEXT://127.0.0.1:{self.port}"]
        advertised = list(listeners)
        if self.proxy_port is not None:
            listeners.append(f"PROXIED://127.0.0.1:{self.proxied_port}")
            advertised.append(f"PROXIED://127.0.0.1:{self.proxy_port}")
        file = self.data / "server.properties"
        file.write_text(
            _PROPERTIES.format(
                controller=self._ports["controller"],
                listeners=",".join(listeners),
                advertised=",".join(advertised),
                logs=self.data / "logs",
            )
        )
        return file

    async def _format(self, jars: Path, properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ("format", "--standalone", f"--cluster-id={cluster}", "--config", str(properties))
        formatting = self._java(jars, *_quickly(jars), "kafka.tools.StorageTool", *arguments)
        if not await ended(formatting, within=START_WITHIN):
            formatting.kill()
        if formatting.wait() != 0:
            raise self._failure("Apache Kafka could not format its data folder", 0)

    def _options(self, jars: Path) -> tuple[str, ...]:
        if self.classes_at_exit is not None:
            return (f"-XX:ArchiveClassesAtExit={self.classes_at_exit}",)
        return _quickly(jars) if self.fast else ()

    def _java(self, jars: Path, *arguments: str) -> subprocess.Popen[bytes]:
        options = (
            *("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"),
            f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}",
        )
        return spawn(["java", *options, "-cp", f"{jars}/*", *arguments], log=self.log)

    async def _is_ready(self, begin: int) -> bool:
        if self.pid is None:
            raise self._failure("Apache Kafka did not start", begin)
        if is_free(self.port):
            return False
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=2000)
        try:
            await admin.start()
            await admin.list_topics()
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            await admin.close()
        return True

    def _failure(self, what: str, begin: int) -> StartError:
        with self.log.open("rb") as log:
            log.seek(begin)
            said = log.read().decode(errors="replace")
        if "another process or thread is using this directory" in said:
            return AlreadyRunning(f"Another Apache Kafka already works on {self.data}.")
        if "No space left on device" in said:
            return DiskFull(f"{what}: no space left on the disk of {self.data}.")
        if "UnsupportedClassVersionError" in said:
            return StartError("Apache Kafka needs Java 17 or newer; the `java` on this machine is older.")
        return StartError(f"{what}: {said.strip()[-500:]} (see {self.log})")
