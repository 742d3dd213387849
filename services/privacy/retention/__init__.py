"""Periods: what starts them, how long they are at a store, and what happens when they are over.

periods.py     what a store has chosen, within the law's bounds
clocks.py      what starts and stops, turned into dates
moving.py      a change of what was chosen moves what runs already
expiring.py    the keyring is told; on the day keys go, then rows, then somebody reads again
surveying.py   what a change would do, and what expires when
"""
