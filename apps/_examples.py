"""For mkdocs (mkdocs.yml): the `Example:` of a docstring is code, which griffe knows as `Examples:` only."""

import re

import griffe


class Examples(griffe.Extension):
    def on_instance(self, *, obj, **kwargs):
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
