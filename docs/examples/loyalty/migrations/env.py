from docs.examples.loyalty.models import Base
from libs.common.db import Base as Common
from libs.common.migrations import run

run(Common.metadata, Base.metadata)
