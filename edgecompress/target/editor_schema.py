"""The JSON Schema of a target file, for editors that check and complete TOML.

It is made from the pydantic models. What only shows once a file is merged with what it inherits
(a missing key, regions that overlap) is for `edgecompress targets check`.
"""

from __future__ import annotations

import json
from typing import Any

SCHEMA_NAME = "target.schema.json"
SCHEMA_LINE = f"#:schema ./{SCHEMA_NAME}"


def editor_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of one file: a target, or a family with its variants."""
    from edgecompress.target.schema import DeviceProfile

    made = DeviceProfile.model_json_schema()
    definitions = made.pop("$defs")
    target = {key: made[key] for key in ("type", "additionalProperties")}
    target["properties"] = dict(made["properties"])
    target["properties"]["inherits"] = {
        "type": "string",
        "title": "Inherits",
        "description": "Name of the target or family this is laid over.",
    }
    for definition in (*definitions.values(), target):
        # Any key may come from what the file inherits from.
        if definition is not definitions.get("Region"):
            definition.pop("required", None)
    definitions["Variant"] = {**target, "required": ["name"]}
    properties = dict(target["properties"])
    properties["variants"] = {
        "type": "array",
        "title": "Variants",
        "description": "The chips of a family; each is laid over the rest of the file.",
        "items": {"$ref": "#/$defs/Variant"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgecompress target",
        "description": made.get("description", ""),
        **target,
        "properties": properties,
        "$defs": definitions,
    }


def editor_schema_text() -> str:
    """The schema as the file that is shipped with the targets."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"
