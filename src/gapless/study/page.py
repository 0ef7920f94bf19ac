"""The templates of the pages: every string escaped, an unknown name is an error."""

from typing import Any


def render_page(template: str, **values: Any) -> str:
    """The page `templates/<template>` with these values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gapless.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
