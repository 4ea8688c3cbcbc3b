"""The peer of `render_fleet.py`: the same files with Jinja2 alone, from contexts that are ready.

Where kingpost uses a template the peer uses the same one with the same values. Where kingpost writes a format by
construction, the peer has a template that lays the same values out; values are quoted by kingpost's own functions as
filters, as they are in the templates that both use. Each context is rendered once here, and counts only when that gives
the very text that kingpost writes.
"""

# ruff: noqa: SLF001  the peer quotes values with the very functions that kingpost does

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, Template

from kingpost.render import gitlab_ci, matrix, nix_conf, site, toml_text, yaml_text

if TYPE_CHECKING:
    from kingpost.topology.platform import Platform

TOML = """\
{% macro table(path, values) %}
{% for key, value in values.items() if value is not tables %}
{{ key | key }} = {{ value | toml }}
{% endfor %}
{% for key, value in values.items() if value is tables %}
{% set inner = path + [key | key] %}
{% for one in ([value] if value is mapping else value) %}

{{ ("[%s]" if value is mapping else "[[%s]]") | format(inner | join(".")) }}
{{ table(inner, one) -}}
{% endfor %}
{% endfor %}
{% endmacro %}
{% for line in comments %}
{{ line }}
{% endfor %}

{{ table([], values) -}}
"""

YAML = """\
{% macro mapping(values, pad) %}
{% for key, value in values.items() %}
{{ pad }}{{ key | scalar }}:{{ entry(value, pad ~ "  ") -}}
{% endfor %}
{% endmacro %}
{% macro entry(value, pad) %}
{% if value is mapping and value %}

{{ mapping(value, pad) -}}
{% elif value is sequence and value is not string and value is not mapping and value %}

{% for inner in value %}
{% if inner is mapping and inner %}
{{ pad }}- {{ mapping(inner, pad ~ "  ")[pad | length + 2:] -}}
{% else %}
{{ pad }}-{{ entry(inner, pad ~ "  ") -}}
{% endif %}
{% endfor %}
{% elif value is block %}
 |
{% for line in value[:-1].split("\\n") %}
{{ pad ~ line if line }}
{% endfor %}
{% else %}
 {{ value | scalar }}
{% endif %}
{% endmacro %}
{% for line in comments %}
{{ line | comment }}
{% endfor %}
{{ mapping(values, "") -}}
"""

SETTINGS = """\
{% for line in comments %}
{{ line }}
{% endfor %}

{% for name, words in settings %}
{{ name }} = {% for word in words %}{{ word | word }}{{ " " if not loop.last }}{% endfor %}

{% endfor %}
"""

VARIABLES = """\
{% for line in comments %}
{{ line }}
{% endfor %}
{% for name, value in variables %}
{{ name }}={{ value }}
{% endfor %}
"""

MATRIX = """\
{% for line in head %}
{{ line }}
{% endfor %}
{% for context, rows in tables %}
{% if not loop.first %}

{% endif %}
## {{ context.id }}

Client in `{{ context.client }}`, Nix daemon in `{{ context.daemon }}`, user `{{ context.user }}`.

| service | dialer | address | why | used for |
| --- | --- | --- | --- | --- |
{% for row in rows %}
| {{ row.service | cell }} | {{ row.dialer }} | \
{% if row.url %}`{{ row.url | cell }}` | {{ row.reason | cell }}{% else %}\
**unreachable** | {{ row.reason | cell }}. Fix: {{ row.fix | cell }}{% endif %} | {{ row.needs | join("; ") | cell }} |
{% endfor %}
{% endfor %}
"""

LINES = "{% for line in lines %}\n{{ line }}\n{% endfor %}\n"

Ready = dict[str, tuple[Template, dict[str, Any]]]
"""Each file's template and its context, by the file's path."""


def _environment() -> Environment:
    made = Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    made.filters |= {
        "key": toml_text._key, "toml": toml_text._value, "scalar": yaml_text.scalar, "word": nix_conf._word,
        "comment": yaml_text.comment, "cell": lambda text: text.replace("|", "\\|"),
    }  # fmt: skip
    made.tests |= {
        "tables": toml_text._is_tables,
        "block": lambda value: isinstance(value, str) and yaml_text._is_block(value),
    }
    return made


def contexts(platform: Platform) -> Ready:
    """Give what the peer renders."""
    recorded: dict[str, tuple[Template, dict[str, Any]]] = {}
    pipelines: dict[str, tuple[Any, Any]] = {}
    render, yaml, fleet = Template.render, gitlab_ci.yaml, site.FLEET

    def recording(template: Template, *arguments: Any, **values: Any) -> str:
        text = render(template, *arguments, **values)
        recorded[text] = (template, dict(*arguments, **values))
        return text

    def recording_yaml(comments: Any, *documents: Any) -> str:
        text = yaml(comments, *documents)
        pipelines[text] = (list(comments), documents[0])
        return text

    Template.render, gitlab_ci.yaml = recording, recording_yaml
    site.FLEET = len(platform.topology.hosts) + 1  # all of it in this process
    try:
        files = site.render_site(platform)
    finally:
        Template.render, gitlab_ci.yaml, site.FLEET = render, yaml, fleet
    templates = {
        name: _environment().from_string(text)
        for name, text in {
            "toml": TOML, "yaml": YAML, "conf": SETTINGS, "env": VARIABLES, "md": MATRIX, "lines": LINES,
        }.items()
    }  # fmt: skip
    ready: Ready = {}
    for path, text in files.items():
        ready[path] = recorded.get(text) or _laid_out(path, text, templates, platform, pipelines)
        template, values = ready[path]
        if template.render(values) != text:
            raise SystemExit(f"the peer renders {path} otherwise than kingpost does")
    return ready


def finished(ready: Ready) -> Ready:
    """Give the peer that is handed finished lines wherever kingpost uses no template of Jinja2's."""
    own = {template for template, _ in ready.values() if template.name is None}
    lines = _environment().from_string(LINES)
    return {
        path: (lines, {"lines": template.render(values).split("\n")[:-1]})
        if template in own
        else (template, values)
        for path, (template, values) in ready.items()
    }


def _laid_out(
    path: str, text: str, templates: dict[str, Template], platform: Platform, pipelines: dict[str, Any]
) -> tuple[Template, dict[str, Any]]:
    """Give the template of a format that kingpost writes by construction, and the values of one file."""
    comments = re.match(r"(?:#.*\n)*", text).group().splitlines()
    body = text.splitlines()[len(comments) :]
    kind = path.rpartition(".")[2] if "." in path.rpartition("/")[2] else path.rpartition("/")[2]
    if kind == "toml":
        return templates["toml"], {"comments": comments, "values": tomllib.loads(text)}
    if kind == "conf":
        settings = [
            (name, value.split(" ")) for line in body if line for name, _, value in [line.partition(" = ")]
        ]
        return templates["conf"], {"comments": comments, "settings": settings}
    if kind == "env":
        return templates["env"], {
            "comments": comments,
            "variables": [line.partition("=")[::2] for line in body],
        }
    if text in pipelines:
        head, values = pipelines[text]
        return templates["yaml"], {"comments": head, "values": values}
    if kind == "md":
        tables: dict[str, list[matrix.Row]] = {}
        for row in matrix.rows(platform, needed=True):
            tables.setdefault(row.context, []).append(row)
        head = text.partition("## ")[0].split("\n")[:-1]
        return templates["md"], {
            "head": head,
            "tables": [(platform.contexts[name], rows) for name, rows in tables.items()],
        }
    return templates["lines"], {"lines": text.split("\n")[:-1]}
