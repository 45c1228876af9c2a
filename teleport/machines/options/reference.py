"""The reference of all options and of the definition file, written from the table and the model: docs/options.md.

`python -m teleport.machines.options.reference` prints it; a test compares the file with it.
"""

from collections.abc import Iterator
from typing import Any

from teleport.machines.controllers import BUSES
from teleport.machines.definition import Definition
from teleport.machines.options import OPTIONS, REFUSED
from teleport.machines.options.option import Option
from teleport.machines.text import KEYS

_UUID = "00000000-0000-4000-8000-000000000000"


def markdown() -> str:
    """The whole page."""
    return "\n".join([*_head(), *_options(), *_storage(), *_file(), *_refused()]) + "\n"


def _head() -> Iterator[str]:
    yield "# A VM's options and its definition file"
    yield ""
    yield "Made by `python -m teleport.machines.options.reference` from the table of options; don't edit it."
    yield ""
    yield "`teleport modifyvm NAME|UUID --OPTION VALUE …` sets any number of them at once: all are taken, or none. Both ends of a"
    yield "teleport must agree in those marked **both**; the others may differ. `<1-8>` stands for a number."
    yield ""
    yield '`eval "$(_TELEPORT_COMPLETE=bash_source teleport)"` lets bash complete verbs, options, their values and names of VMs.'


def _options() -> Iterator[str]:
    groups: dict[str, list[Option]] = {}
    for option in OPTIONS:
        groups.setdefault(option.group, []).append(option)
    example = Definition(name="NAME", uuid=_UUID)
    for group, options in groups.items():
        yield from ("", f"## {group}", "", "| option | values | in a new definition | field | |", "|---|---|---|---|---|")
        for option in options:
            number = f"<1-{option.most}>" if option.most else ""
            default = option.text(example, option.numbers[0]) if option.shown and option.name not in ("name", "uuid") else ""
            also = "".join(f", `--{word}{number}`" for word in option.also)
            yield (
                f"| `--{option.name}{number}`{also} | `{_cell(option.kind.metavar)}` | {_code(default)} | `{option.where}` "
                f"| {'**both**: ' if option.hardware else ''}{_cell(option.about)} |"
            )


def _storage() -> Iterator[str]:
    yield from (
        "",
        "## Storage controllers",
        "",
        "One of each kind (`storagectl --add`); ports and devices are counted from 0.",
        "",
    )
    yield from ("| `--add` | `--controller` | ports | devices a port | takes |", "|---|---|---|---|---|")
    for kind in BUSES.values():
        ports = str(kind.most_ports) if kind.least_ports == kind.most_ports else f"{kind.least_ports}-{kind.most_ports}"
        chips = ", ".join(f"`{each}`" for each in kind.chips)
        yield f"| `{kind.add}` | {chips} | {ports} | {kind.devices_per_port} | {', '.join(kind.types)} |"


def _file() -> Iterator[str]:
    yield from ("", "## The file", "")
    yield "`definition.toml` in the VM's folder. Unknown fields are refused, missing ones have the value given here. The remote"
    yield "display's are in `[vrde]` and are set by its options above."
    schema = Definition.model_json_schema(mode="serialization")
    yield from _table("", schema, schema)
    for name, field in schema["properties"].items():
        yield from _section(name, field, schema)


def _section(name: str, field: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """A table or list of tables, and those within it."""
    inner = field.get("items", field)
    reference = inner.get("$ref", "") or next((each["$ref"] for each in inner.get("allOf", ()) if "$ref" in each), "")
    if not reference:
        return
    model = schema["$defs"][reference.rsplit("/", 1)[1]]
    if "properties" not in model:
        return
    title = f"[[{name}]]" if "items" in field else f"[{name}]"
    told_apart = f", told apart by {' and '.join(KEYS[name.rsplit('.', 1)[-1]])}" if "items" in field else ""
    yield from ("", f"### `{title}`{told_apart}")
    yield from _table(model.get("description", "").split("\n\n")[0].replace("\n", " "), model, schema)
    for each, within in model["properties"].items():
        yield from _section(f"{name}.{each}", within, schema)


def _table(about: str, model: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield from ("", *([about, ""] if about else []), "| field | values | default |", "|---|---|---|")
    required = set(model.get("required", ()))
    for name, field in model["properties"].items():
        if "$ref" in field or "$ref" in field.get("items", {}):
            reference = (field.get("$ref") or field["items"]["$ref"]).rsplit("/", 1)[1]
            if "properties" in schema["$defs"][reference]:
                continue
        if name == "vrde":
            continue
        default = "" if name in required or "default" not in field else _code(_toml(field["default"]))
        yield f"| `{name}` | {_values(field)} | {default} |"


def _values(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"] if each)
    if field.get("type") == "array":
        return f"list of {_values(field['items'])}"
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None:
        return f"{low} to {high}" if high is not None else f"from {low}"
    return {"boolean": "true, false", "integer": "number", "object": "table"}.get(field.get("type", ""), "text")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _refused() -> Iterator[str]:
    yield from ("", "## Options of VirtualBox that are refused", "", "| option | why |", "|---|---|")
    for name in sorted(REFUSED):
        yield f"| `--{name}` | {REFUSED[name]} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


if __name__ == "__main__":
    print(markdown(), end="")
