"""Moving images between stores: the one verb behind push, pull and copy."""

from imagetool.transfer.origins import FolderOrigins, Origins
from imagetool.transfer.plan import BlobReport, CopyReport
from imagetool.transfer.run import copy

__all__ = ["BlobReport", "CopyReport", "FolderOrigins", "Origins", "copy"]
