from libs.common.migrations import run
from libs.common.tables import METADATA
from services.identity.models import Base

run(METADATA, Base.metadata)
