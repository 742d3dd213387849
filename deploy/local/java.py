"""Java and Maven, which only the local Apache Kafka needs."""

import os
import shutil
import subprocess

from deploy.local.errors import MissingProgram

PACKAGES = ("openjdk-17-jre-headless", "maven")


def ensure_java() -> None:
    """Install Java and Maven by apt-get when they are absent and we may. Raises MissingProgram."""
    if shutil.which("java") and shutil.which("mvn"):
        return
    command = f"apt-get install --yes {' '.join(PACKAGES)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingProgram(f"Apache Kafka needs Java 17 and Maven. Type: sudo {command}")
    print("Installing Java and Maven …", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        apt = subprocess.run(["apt-get", "-qq", *step], env=quiet, check=False, capture_output=True)
        if apt.returncode:
            words = apt.stderr.decode(errors="replace").strip()
            raise MissingProgram(f"Java and Maven could not be installed: {words}\nType: {command}")
