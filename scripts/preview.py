"""The site as plain pages, where Quarto is not to be had: `python scripts/preview.py [folder]` (_preview).

Takes the notebooks as nbdev has prepared them for Quarto (`_proc`, made if it is missing) and the pages beside them.
Search and code folding are Quarto's; everything else is to be seen here: order, outputs, pictures, links, both themes.
"""
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from jinja2 import Environment
from markdown_it import MarkdownIt
from pages import NBS, ROOT, directives, front, sections, settings, target
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} – distillnb</title><link rel="icon" href="{{ up }}images/icon.svg">
<style>{{ css|safe }}</style></head><body>
<a class="skip" href="#content">Skip to the text</a>
<header><a href="{{ up }}index.html"><img src="{{ up }}images/logo.svg" alt="distillnb" height="28"></a>
<nav aria-label="Site">{% for name, target in navbar %}<a href="{{ up }}{{ target }}">{{ name }}</a>{% endfor %}</nav>
</header><div class="columns"><details class="contents" open><summary>Contents</summary>
<nav aria-label="Contents">{% for section, href, pages in sidebar %}<p class="part">
{% if href %}<a href="{{ up }}{{ href }}">{{ section }}</a>{% else %}{{ section }}{% endif %}</p><ul>
{% for name, target in pages %}<li><a href="{{ up }}{{ target }}"{% if target == here %} aria-current="page"{% endif %}>
{{ name }}</a></li>{% endfor %}</ul>{% endfor %}</nav></details>
<main id="content">{{ body|safe }}
<nav class="pager" aria-label="Pages">{% if before %}<a href="{{ up }}{{ before[1] }}">← {{ before[0] }}</a>{% endif %}
{% if after %}<a href="{{ up }}{{ after[1] }}">{{ after[0] }} →</a>{% endif %}</nav></main></div>
<script>if (matchMedia("(max-width: 60rem)").matches) document.querySelector(".contents").open = false</script>
</body></html>""")

BASE = """
*{box-sizing:border-box} body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.6 system-ui,sans-serif}
header{display:flex;gap:1.5rem;align-items:center;padding:.6rem 1.2rem;border-bottom:1px solid var(--rule)}
header nav{display:flex;flex-wrap:wrap;gap:1rem} .columns{display:flex;gap:2rem;padding:0 1.2rem;align-items:flex-start}
.contents{flex:0 0 15rem;font-size:.9rem;margin-top:1.5rem} .contents ul{list-style:none;margin:0;padding:0 0 0 .6rem}
.contents .part{font-weight:600;margin:.8rem 0 .2rem} main{flex:0 1 820px;min-width:0;padding:1rem 0 4rem}
[aria-current]{font-weight:700} .skip{position:absolute;left:-99rem} .skip:focus{left:1rem}
.pager{display:flex;justify-content:space-between;margin-top:3rem} h1{line-height:1.2}
.columns a{color:var(--link)} header a{color:var(--link);text-decoration:none} blockquote{margin-left:0}
.highlight pre,.output pre{padding:.6rem .8rem;border-radius:4px;font-size:13.5px;line-height:1.45;overflow-x:auto}
.highlight pre{background:var(--code)} .output svg,.output img,main img{max-width:100%;height:auto}
@media(max-width:60rem){.columns{flex-direction:column;gap:0}.contents{flex:none;width:100%}main{width:100%}}
"""


def code(text: str, language: str = "python") -> str:
    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return highlight(text, lexer, HtmlFormatter(cssclass="highlight")).replace("<pre>", '<pre tabindex="0">')


def anchor(text: str) -> str:
    """What Pandoc makes of a heading."""
    text = re.sub(r"[^\w\s.-]", "", re.sub(r"<[^>]+>", "", text)).strip().lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", text))


def markdown(text: str) -> str:
    parser = MarkdownIt("commonmark", {"html": True, "highlight": lambda text, name, _: code(text, name)})
    parser.enable("table")
    text = re.sub(r"\{(#[\w-]+|\.[\w-]+|[^{}\n]*=[^{}\n]*)\}$", "", text, flags=re.M)
    page = parser.render(re.sub(r"^:::.*$", "", text, flags=re.M))
    page = re.sub(r"<h([1-6])>(.*?)</h\1>", lambda m: f'<h{m[1]} id="{anchor(m[2])}">{m[2]}</h{m[1]}>', page)
    return page.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")


def output(found, alt: str) -> str:
    """One output as HTML: the richest form that it has."""
    data = found.get("data", {})
    if "image/svg+xml" in data:
        picture = data["image/svg+xml"]
        if "role=" not in picture.split(">")[0]:
            picture = picture.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
        return picture
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
        return f'<div class="table" tabindex="0">{table}</div>'
    if "text/markdown" in data:
        return markdown(data["text/markdown"])
    text = found.get("text", data.get("text/plain", ""))
    return f"<pre>{html.escape(text.rstrip())}</pre>" if text.strip() else ""


def notebook(cells: list) -> str:
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(markdown(cell.source))
            continue
        if cell.cell_type != "code":
            continue
        told, source = directives(cell.source)
        if source and told.get("echo") != "false":
            parts.append(code(source))
        if told.get("output") != "false":
            shown = "".join(output(each, told.get("fig-alt", "")) for each in cell.outputs)
            parts.append(f'<div class="output cell-output">{shown}</div>' if shown else "")
    return "\n".join(parts)


def render(path: Path) -> tuple[str, str]:
    """Title and body of a notebook or a page."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        body, raw = notebook(cells), [cell.source for cell in cells if cell.cell_type == "raw"]
        told = front(raw[0] + "\n")[0] if raw else {}
    else:
        told, text = front(path.read_text(encoding="utf-8"))
        body = markdown(text)
    title = told.get("title") or re.search(r"<h1[^>]*>(.*?)</h1>", body, re.S)[1]
    if told.get("title"):
        says = f"<p class=\"says\">{html.escape(told['description'])}</p>" if told.get("description") else ""
        body = f"<h1>{html.escape(title)}</h1>{says}{body}"
    return re.sub(r"<[^>]+>", "", title), body


def prepared() -> Path:
    """The notebooks as nbdev gives them to Quarto."""
    folder = ROOT / "_proc"
    if not folder.is_dir():
        make = "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True)"
        subprocess.run([sys.executable, "-c", make], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def build(source: Path, into: Path) -> None:
    """All pages of a folder of prepared notebooks, into another folder."""
    pages = [path for path in sorted(source.rglob("*")) if path.suffix in (".ipynb", ".qmd")]
    rendered = {path.relative_to(source).as_posix(): render(path) for path in pages}
    parts = sections()

    def named(name):
        return rendered[name][0], target(name)
    sidebar = [(section, href and target(href), [(text or named(name)[0], target(name)) for text, name in names])
               for section, href, names in parts]
    order = [name for _, href, names in parts for name in ([href] if href else []) + [name for _, name in names]]
    dark = f"@media(prefers-color-scheme:dark){{{HtmlFormatter(style='monokai').get_style_defs('.highlight')}}}"
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    light = re.sub(r"background: #f8f8f8;", "", light)
    css = BASE + light + dark.replace("background: #272822;", "") + (NBS / "styles.css").read_text()
    bar = [(each["text"], target(each["href"])) for each in settings()["navbar"]["left"]]
    if into.exists():
        shutil.rmtree(into)
    shutil.copytree(NBS / "images", into / "images")
    for name, (title, body) in rendered.items():
        place = order.index(name) if name in order else None
        around = [named(order[i]) if place is not None and 0 <= i < len(order) else None
                  for i in ((place or 0) - 1, (place or 0) + 1)]
        body = re.sub(r'(href="(?!https?://)[^"#]*)\.(ipynb|qmd)', r"\1.html", body)
        page = PAGE.render(title=title, body=body, css=css, sidebar=sidebar, navbar=bar, here=target(name),
                           up="../" * name.count("/"), before=around[0], after=around[1])
        file = into / target(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    build(prepared(), Path(sys.argv[1]) if sys.argv[1:] else ROOT / "_preview")
