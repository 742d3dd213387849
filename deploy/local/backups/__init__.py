"""Backups of every database, and their return.

    TO/databases/20260102T030405Z/       orders.dump … broker.dump, manifest.json
    KEYRING_TO/keyring/20260102T030405Z/           keyring.dump, manifest.json
    DESTRUCTIONS_TO/destructions/20260102T030405Z/ destructions.csv, manifest.json

Three sets, since they must not lie together: a keyring's backups hold keys and lapse after days, and the destruction
log, which outlives them, is what keeps a key that comes back from opening anything.
"""
