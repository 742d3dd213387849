"""The checks of a participant on the broker, in the order in which they run."""

from conformance.over_kafka import announcing, answering, changing, ending, erasing, exporting, lasting, wire

CHECKS = [
    check
    for group in (announcing, answering, exporting, changing, erasing, lasting, ending, wire)
    for check in group.check.all
]
