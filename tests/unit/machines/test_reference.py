from pathlib import Path

from teleport.machines.definition import Definition
from teleport.machines.options import OPTIONS
from teleport.machines.options.reference import markdown
from tests.unit.machines.cases import definition

PAGE = Path(__file__).parents[3] / "docs/options.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == markdown(), "python -m teleport.machines.options.reference > docs/options.md"


def test_every_option_names_a_field_of_the_definition() -> None:
    raw = Definition.model_json_schema(mode="serialization")
    for option in OPTIONS:
        for where in option.where.split(", "):
            section, _, name = where.rpartition(".")
            if section == "vrde":
                assert hasattr(definition().vrde, name), option.name
                continue
            field = raw["properties"][section or name]
            if section:
                reference = (field.get("$ref") or field["items"]["$ref"]).rsplit("/", 1)[1]
                assert name in raw["$defs"][reference]["properties"], option.name
