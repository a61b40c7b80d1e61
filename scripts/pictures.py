"""Logo, icon, social card and the maps of the parts, as the pages use them: `python scripts/pictures.py`."""
from pathlib import Path
from textwrap import wrap

import vl_convert
from pages import NBS, sections, title

from distillnb.pictures import COLORS, Drawing

IMAGES = NBS / "images"


def mark(drawing: Drawing, x: float, y: float, size: float) -> Drawing:
    """A large ring with an opinion of three bars, and a small dot that has it from there."""
    ring, dot = COLORS["teacher"], COLORS["linear"]
    drawing.add("circle", cx=x + .4 * size, cy=y + .4 * size, r=.33 * size, fill="none", stroke=ring,
                stroke_width=.09 * size)
    for i, height in enumerate((.1, .34, .18)):
        drawing.add("rect", x=x + (.25 + .11 * i) * size, y=y + (.57 - height) * size, width=.08 * size,
                    height=height * size, fill=ring)
    drawing.add("line", x1=x + .64 * size, y1=y + .64 * size, x2=x + .8 * size, y2=y + .8 * size, stroke=dot,
                stroke_width=.06 * size)
    return drawing.add("circle", cx=x + .84 * size, cy=y + .84 * size, r=.13 * size, fill=dot)


def logo() -> Drawing:
    drawing = mark(Drawing(190, 44, "distillnb"), 2, 2, 40)
    return drawing.text(54, 24, "distillnb", "ink", "start", font_size=28, font_weight=600)


def icon() -> Drawing:
    return mark(Drawing(64, 64, "distillnb"), 0, 0, 64)


def card() -> Drawing:
    drawing = Drawing(1200, 630, "distillnb: small students of slow teachers")
    drawing.add("rect", x=0, y=0, width=1200, height=630, fill="#ffffff")
    mark(drawing, 90, 150, 300)
    drawing.text(450, 230, "distillnb", "#24292f", "start", font_size=96, font_weight=700)
    for i, line in enumerate(("A slow, good text classifier becomes", "a file of 300 kB that answers in a tenth",
                              "of a millisecond, tested beside its twin.")):
        drawing.text(454, 330 + 56 * i, line, "#4a525b", "start", font_size=40)
    return drawing


def part_map(names: list[str]) -> Drawing:
    """The chapters of a part in the order of reading, four in a row."""
    rows = -(-len(names) // 4)
    drawing = Drawing(760, 20 + 90 * rows, "The chapters of this part in their order: " + ", ".join(names))
    for i, name in enumerate(names):
        x, y = 10 + 190 * (i % 4), 15 + 90 * (i // 4)
        drawing.box(x, y, 160, 60, "\n".join(wrap(name, 19)), "linear")
        if i % 4 < 3 and i + 1 < len(names):
            drawing.arrow((x + 160, y + 30), (x + 188, y + 30))
        elif i + 1 < len(names):
            drawing.add("path", d=f"M{x + 80} {y + 60}V{y + 75}H90V{y + 88}", fill="none", stroke=COLORS["ink"],
                        stroke_width=1.5, marker_end="url(#tip)")
    return drawing


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    made = {"logo": logo(), "icon": icon(), "card": card()}
    for _, href, pages in sections():
        if href:
            made[Path(href).stem] = part_map([title(NBS / name)[0] for _, name in pages])
    for name, drawing in made.items():
        (IMAGES / f"{name}.svg").write_text(drawing._repr_svg_() + "\n", encoding="utf-8")
    for name, scale in (("card", 1), ("icon", 4)):
        (IMAGES / f"{name}.png").write_bytes(vl_convert.svg_to_png(made[name]._repr_svg_(), scale=scale))


if __name__ == "__main__":
    main()
