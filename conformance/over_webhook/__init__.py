"""The checks of a recipient outside, of either protocol."""

from conformance.over_webhook import shopify, standard

STANDARD = standard.check.all
SHOPIFY = shopify.check.all
