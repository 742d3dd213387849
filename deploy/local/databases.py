"""The platform's databases on one server: who owns them, who may use them, and the addresses of both."""

from collections.abc import Mapping
from typing import Any

from deploy.local.postgres import PostgresServer

OWNER = "vitrine_owner"
"""Owns every database and runs migrations; not a superuser, so row-level security binds it too."""

NAMES = ("catalog", "orders", "identity", "billing", "privacy", "keyring", "destructions", "broker")


async def provision(server: PostgresServer) -> Mapping[str, str]:
    """Create what is missing of the roles and databases, and return their addresses as environment variables.

    `ORDERS_DATABASE_URL` is the application's (it owns nothing), `ORDERS_MIGRATION_DATABASE_URL` the owner's.
    """
    connection = await server.connect()
    try:
        await _ensure_role(connection, OWNER, server.password(OWNER))
        existing = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in NAMES:
            await _ensure_role(connection, app_role(name), server.password(app_role(name)))
            if database(name) not in existing:
                await connection.execute(f"CREATE DATABASE {database(name)} OWNER {OWNER}")
            await connection.execute(f"REVOKE ALL ON DATABASE {database(name)} FROM PUBLIC")
            await connection.execute(f"GRANT CONNECT ON DATABASE {database(name)} TO {app_role(name)}")
    finally:
        await connection.close()
    return addresses(server)


def database(name: str) -> str:
    """`orders` → `vitrine_orders`."""
    return f"vitrine_{name}"


def app_role(name: str) -> str:
    """`orders` → `vitrine_orders_app`, which may read and write rows of its own database and nothing else."""
    return f"vitrine_{name}_app"


def addresses(server: PostgresServer) -> Mapping[str, str]:
    """The environment variables that name the databases of this server."""
    return {
        variable: address
        for name in NAMES
        for variable, address in (
            (f"{name.upper()}_DATABASE_URL", server.url(database(name), app_role(name))),
            (f"{name.upper()}_MIGRATION_DATABASE_URL", server.url(database(name), OWNER)),
        )
    }


async def _ensure_role(connection: Any, role: str, password: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role}")
    # Roles and passwords are our own words without quotes; a utility statement takes no parameters.
    await connection.execute(f"ALTER ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '{password}'")
