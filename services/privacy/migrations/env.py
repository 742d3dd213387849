from libs.common.migrations import run
from libs.common.tables import METADATA
from services.privacy.models import Base

run(METADATA, Base.metadata)
