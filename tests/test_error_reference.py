from pathlib import Path

from learnflow_core.errors import Code
from learnflow_http import error_reference

DOCS = Path(__file__).parent.parent / "docs"


def test_every_code_has_its_section_in_the_page_and_in_the_document() -> None:
    page, document = error_reference.page().decode(), error_reference.markdown()
    for code in Code:
        assert f'id="{code.value}"' in page
        assert f"\n### {code.value}\n" in document


def test_the_document_is_the_one_that_the_program_prints() -> None:
    assert (DOCS / "errors.md").read_text("utf-8") == error_reference.markdown()


def test_nothing_in_the_page_is_markup_by_accident() -> None:
    assert "&lt;credential&gt;" in error_reference.page().decode()
