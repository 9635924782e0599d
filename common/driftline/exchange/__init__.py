"""Tables to and from files of other programs: Parquet, npz, safetensors and Lance.

`export_version` writes a table of a version, `open_table` reads a file block by block,
`import_table` puts it into a live table, `batches` and `dataset` give a version to whatever reads
Arrow. Memory is bounded by a block, however long the table is.
"""

from driftline.exchange.arrow import batches, dataset
from driftline.exchange.blocks import FORMATS, Block, TableFile, format_of
from driftline.exchange.importing import import_table
from driftline.exchange.reading import open_table
from driftline.exchange.writing import export_version

__all__ = [
    "FORMATS",
    "Block",
    "TableFile",
    "batches",
    "dataset",
    "export_version",
    "format_of",
    "import_table",
    "open_table",
]
