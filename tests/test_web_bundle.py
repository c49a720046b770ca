"""Scripts that are sent together with all that they import."""
from __future__ import annotations

import re

import pytest
from streamdream_web.core import assets, bundle

SOURCES = {
    "words": "export default {\n  \"live\": \"Live\"\n};\n",
    "scale": "export const LOW = 1, HIGH = 2;\nexport function scale(value) { return value; }\n",
    "panel": 'import words from "./words.js";\nimport {\n  LOW as least,\n  scale,\n} from "./scale.js";\n'
             "export class Panel {}\n",
    "page": 'import { Panel } from "./panel.js";\nimport { scale } from "./scale.js";\n'
            "export async function start() { return scale(new Panel()); }\n",
    "one": 'import { other } from "./other.js";\n', "other": 'import { one } from "./one.js";\n',
}


def test_each_module_is_in_a_bundle_once_and_after_what_it_imports() -> None:
    joined = bundle.join("page", SOURCES)
    assert re.findall(r"^const \$(\w+) = \(\(\)", joined, re.MULTILINE) == ["words", "scale", "panel", "page"]
    assert "const { default: words } = $words;" in joined and "const { LOW: least, scale } = $scale;" in joined
    assert "return { LOW, HIGH, scale };" in joined
    assert joined.rstrip().endswith("export const { start } = $page;")
    assert re.findall("^(import|export) ", joined, re.MULTILINE) == ["export"]


def test_scripts_that_import_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="one > other > one"):
        bundle.join("one", SOURCES)


@pytest.mark.parametrize("name", assets.BUNDLES)
def test_every_name_that_a_script_of_the_page_imports_is_exported(name: str) -> None:
    """Nothing else says so before a browser does."""
    joined = assets.script(name)
    exported = {module: names.split(", ") for module, names in re.findall(
        r"^const \$(\w+) = \(\(\) => \{.*?^return \{ (.*?) \};$", joined, re.MULTILINE | re.DOTALL)}
    imported = re.findall(r"^const \{ (.*) \} = \$(\w+);$", joined, re.MULTILINE)
    assert imported
    for names, module in imported:
        for each in names.split(", "):
            assert any(each.partition(":")[0] == other.partition(":")[0] for other in exported[module]), (module, each)
