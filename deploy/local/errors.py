"""What can stop a local start, said to the person at the terminal.

StartError
├── PortTaken         another program listens there
├── DiskFull          not enough room to start, or none left while starting
├── AlreadyRunning    another live process works on the same folder
└── MissingProgram    a program must be installed first; the message is the command to type
"""


class StartError(Exception):
    """A local part cannot start; the message says why and what to do."""


class PortTaken(StartError):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"Port {port} is taken by another program. Stop it, or choose another port.")


class DiskFull(StartError):
    """The disk has too little room."""


class AlreadyRunning(StartError):
    """Another live process works on the same data folder."""


class MissingProgram(StartError):
    """A program of the machine is needed and absent."""
