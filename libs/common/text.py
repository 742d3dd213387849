"""Text from outside. PostgreSQL stores every character but NUL, so a NUL is refused at the door."""

from typing import Annotated

from pydantic import StringConstraints

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Any text without NUL; bounds are added where it is used: `Annotated[Text, Field(max_length=200)]`."""
