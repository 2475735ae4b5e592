"""CaTran-D, the directed variant of CaTran: knock-downs as inputs, regulation as signed weights."""

from grndist.models.catran_d.build import Built, bytes_needed, from_facts
from grndist.models.catran_d.config import CaTranDConfig
from grndist.models.catran_d.model import CaTranD, Sizes

__all__ = ["Built", "CaTranD", "CaTranDConfig", "Sizes", "bytes_needed", "from_facts"]
