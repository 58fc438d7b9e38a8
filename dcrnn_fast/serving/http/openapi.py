"""The OpenAPI description of the HTTP interface: openapi.yaml, with the columns of the model that is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ... import __version__

TEXT = Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8")


def describe_api(about: Mapping[str, Any]) -> dict[str, Any]:
    """The description, OpenAPI 3.1, of a server that says ``about`` itself at /v1/model."""
    limits, columns, made = about["limits"], about["columns"], yaml.safe_load(TEXT)
    made["info"] |= {"version": __version__, "description": f"Scores rows with the model {about['model']}."}
    too_much = f"More than {limits['body_bytes']:,} bytes, or more than {limits['rows']:,} rows."
    made["paths"]["/v1/score"]["post"]["responses"]["413"]["description"] = too_much
    schemas = made["components"]["schemas"]
    schemas["Cells"]["maxItems"] = limits["rows"]
    for part in schemas["ScoreRequest"]["properties"].values():
        part["properties"] = dict.fromkeys(columns, part["additionalProperties"])
    schemas["ScoreRequest"] |= {
        "description": "All lists of `columns` have one length, the number of rows. A column is in one of the two. The model reads "
        f"{', '.join(columns)}; other columns are ignored.",
        "examples": [{"columns": {name: [None, None] for name in columns}}],
    }
    probabilities = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
    schemas["Scores"]["properties"]["scores"] |= {"properties": dict.fromkeys(about["names"], probabilities), "required": about["names"]}
    return made
