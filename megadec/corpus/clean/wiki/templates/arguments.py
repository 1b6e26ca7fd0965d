"""What a template's rule is given: the page it stands on, and its arguments as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megadec.corpus.clean.variant import SIMPLIFIED, TRADITIONAL, to_variant


@dataclass(frozen=True, slots=True)
class Page:
    """What a template or a link needs to know of the page it stands on."""

    title: str
    variant: str


class Arguments:
    """A template's arguments by name (lower case) or position (counted from 1), already text."""

    def __init__(self, parameters: Sequence[tuple[str, str]], page: Page, head: str = "") -> None:
        self._values = {name.strip().lower(): value.strip() for name, value in parameters}
        self.parameters = parameters
        self.page = page
        self.head = head  # what follows the colon of a parser function

    def text(self, *names: int | str) -> str:
        """The first of these arguments that is not empty."""
        return next((value for name in names if (value := self._values.get(str(name), ""))), "")

    def positional(self) -> list[str]:
        """All non-empty positional arguments in order."""
        return [value for name, value in self._values.items() if name.isdigit() and value]

    def words(self, simplified: str) -> str:
        """Words of our own tables, which are in Simplified, in the script of the page."""
        return to_variant(simplified, SIMPLIFIED, TRADITIONAL) if self.page.variant == TRADITIONAL else simplified


Recipe = Callable[[Arguments], str]
