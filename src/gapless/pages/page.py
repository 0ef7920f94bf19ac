"""The templates of the pages: every string escaped, an unknown name is an error."""

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

from gapless.core.files import strict_json

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(room: str) -> "Environment":
    """The templates of a room and those of `pages`."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(room), PackageLoader("gapless.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def jpeg_address(content: bytes) -> str:
    """A JPEG as an address that holds it, so that a page loads nothing."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def render_page(room: str, template: str, **values: Any) -> str:
    """The page `templates/<template>` of a room ("gapless.study"); it may include the shared parts that lie here."""
    return environment(room).get_template(template).render(**values)


def json_for_page(value: Any) -> str:
    """JSON that cannot end its script element, whatever the strings hold."""
    text = strict_json(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
