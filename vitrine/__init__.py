"""Checks what a Vitrine platform certifies, without that platform: no database, no network, nothing of its services.

    pip install joserfc
    python -m vitrine verify certificate.json --key keys.json

    pip install httpx
    python -m vitrine requests list

The second asks a running platform what it waits for, and needs its address and an officer's sign-in; see `operating`.
The folder stands alone and may be carried anywhere. The platform itself uses `merkle` and `signing`, so what it signs
and what is checked here cannot drift apart.
"""
