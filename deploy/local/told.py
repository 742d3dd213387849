"""How the demo speaks: a line for each thing it saw."""

from deploy.local.shop import Surprise


def say(text: str) -> None:
    """One thing seen."""
    print(f"     ✓ {text}", flush=True)


def expect(truth: bool, text: str) -> None:
    """One thing seen, or Surprise."""
    if not truth:
        raise Surprise(f"expected: {text}")
    say(text)
