"""`driftline where TABLE ID`: which shard and keys hold a row, and how any client can read it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import orjson
import typer

from driftline.cli.options import AsJson, on_rows, row_id
from driftline.cli.tables_command import reader
from driftline.client.splitting import as_ids
from driftline.config import Settings, redact_url
from driftline.ids import lsn_generation, lsn_offset, shard_of
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import id_bytes


@on_rows
def where(
    settings: Settings,
    table: str,
    row: Annotated[str, typer.Argument(metavar="ID", help="0 to 2^64 - 1.")],
    as_json: AsJson = False,
) -> None:
    """Print shard, Redis keys and a ready redis-cli command for a row, and the row if it exists."""
    number = row_id(row)
    ids = as_ids(np.array([number], np.uint64))
    with reader(settings) as connected:
        handle = connected.table(table)
        spec = handle.spec
        rows = handle.get(ids)
        shard = int(shard_of(ids, spec.shards)[0])
        url = connected.home(table, shard)
    keys, layout = ShardKeys.of(table, shard), RowLayout.of(spec)
    field = "".join(f"\\x{byte:02x}" for byte in id_bytes(ids)[0].tolist())
    # redis-cli reads escapes only from its input, and a shell cannot pass NUL bytes as an argument
    command = f"""printf '%s\\n' 'HGET "{keys.values.decode()}" "{field}"' | redis-cli -u {redact_url(url)}"""
    answer = {
        "table": table,
        "id": number,
        "shard": shard,
        "shards": spec.shards,
        "server": redact_url(url),
        "values_key": keys.values.decode(),
        "position_key": keys.position.decode(),
        "state_key": keys.state.decode() if layout.separate_state else None,
        "value": f"{spec.dim} x float32 | lsn u64 | ordinal u32"
        + (f" | {spec.state_size} x float32 state" if layout.inline and spec.state_size else ""),
        "command": command,
        "exists": bool(rows.found[0]),
        "generation": lsn_generation(int(rows.lsn[0])),
        "offset": lsn_offset(int(rows.lsn[0])),
        "row": rows.vectors[0].tolist(),
    }
    if as_json:
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"table {table}, id {row}: shard {shard} of {spec.shards}")
    typer.echo(f"values    {answer['values_key']}  ({answer['value']}, {layout.value_bytes} bytes)")
    if answer["state_key"]:
        typer.echo(f"state     {answer['state_key']}")
    typer.echo(f"position  {answer['position_key']}")
    if rows.found[0]:
        typer.echo(f"row       {np.array2string(rows.vectors[0], threshold=8)}")
        typer.echo(f"changed   by the record at offset {answer['offset']} of its shard's log")
    else:
        typer.echo(f"row       not born yet; would start as {np.array2string(rows.vectors[0], threshold=8)}")
    typer.echo(f"\n{command}")
