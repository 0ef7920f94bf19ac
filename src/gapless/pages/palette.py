"""Colours that everyone can tell apart (Okabe and Ito): in a drawing as they are, on a page as its own variables."""

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY = "#0072b2", "#d55e00", "#009e73", "#b0569c", "#b8860b", "#4aa3df"
INK, FAINT = "#1f2328", "#8a9099"
# Every colour also has its own mark: matplotlib's, as a character, and by name.
MODALITY_STYLES = (
    (BLUE, "o", "●", "circle"),
    (ORANGE, "^", "▲", "triangle-up"),
    (GREEN, "s", "■", "square"),
    (PURPLE, "D", "◆", "diamond"),
    (AMBER, "v", "▼", "triangle-down"),
    (SKY, "P", "✚", "cross"),
)

# The page's own variables colour a drawing that stands in it, so that it follows light, dark and print.
PAGE_COLOURS = {
    INK: "--ink",
    FAINT: "--faint",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PURPLE: "--purple",
    AMBER: "--amber",
    SKY: "--sky",
}


def modality_style(index: int) -> tuple[str, str, str]:
    """Colour, matplotlib marker and text glyph of the index-th modality."""
    return MODALITY_STYLES[index % len(MODALITY_STYLES)][:3]


def modality_mark(index: int) -> dict[str, str]:
    """The index-th modality on a page: the variable that colours it, its shape by name, its glyph."""
    colour, _, glyph, shape = MODALITY_STYLES[index % len(MODALITY_STYLES)]
    return {"colour": PAGE_COLOURS[colour], "symbol": shape, "glyph": glyph}


def page_colour(colour: str) -> str:
    """The CSS colour of a page that stands for a colour of a drawing."""
    return f"var({PAGE_COLOURS[colour]})" if colour in PAGE_COLOURS else colour
