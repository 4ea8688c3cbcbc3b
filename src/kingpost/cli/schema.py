"""`kingpost schema`: the JSON Schema of a topology, for editors."""

from __future__ import annotations

import json


def command() -> None:
    """Print the JSON Schema of a topology.

    Editors use it for completion and errors while typing; in topology.toml, Taplo reads it from a first line
    `#:schema ./topology.schema.json`. What it cannot say, such as a name that is not declared, `kingpost check`
    says.
    """
    from kingpost.topology.model import Topology

    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Topology.model_json_schema(by_alias=True),
    }
    print(json.dumps(schema, indent=2))
