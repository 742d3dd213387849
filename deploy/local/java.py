"""Java and Maven, which only the local Apache Kafka needs."""

import shutil

from deploy.local.apt import install

PACKAGES = ("openjdk-17-jre-headless", "maven")


def ensure_java() -> None:
    """Install Java and Maven by apt-get when they are absent and we may. Raises MissingProgram."""
    if not (shutil.which("java") and shutil.which("mvn")):
        install(PACKAGES, wanted="Apache Kafka needs Java 17 and Maven.")
