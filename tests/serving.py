"""An application behind a port, in this process."""

from deploy.local.serving import serving

__all__ = ["serving"]
