"""Markdown and outputs of a notebook as HTML that runs nothing and loads nothing; formulas and pictures lie inside it.

Told in: notebooks/00_start_here.ipynb
"""

import base64
import functools
import io
import re

import bleach
import bs4
import jinja2
from markupsafe import escape
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath, text_to_path
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from PIL import Image as Picture

from pawlib.show.unnamed import without_names

WIDEST, FEW_BYTES, N_COLOURS = 1600, 200_000, 128  # of a picture: pixels, bytes, and what is left of one above them


class _Prose(IPythonRenderer):
    """nbconvert's markdown, with formulas drawn, headings below the chapter's, and links that lead within the page."""

    def __init__(self, kept, chapters, **kw):
        super().__init__(**kw)
        self.kept, self.chapters = kept, chapters

    def heading(self, text, level, **attrs):
        level = min(level + 2, 6)
        return f"<h{level}>{text}</h{level}>\n"

    def link(self, text, url, title=None):
        name = re.sub(r"\.ipynb$", "", url.split("#")[0].rsplit("/", 1)[-1])
        url = f"#{name}" if name in self.chapters else url
        return super().link(text, url, title) if _leads(url) else text

    def codespan(self, text):
        shown = super().codespan(text)
        return f'<a href="#{text}">{shown}</a>' if text in self.chapters else shown

    def image(self, text, url, title=None):
        try:
            source = self._embed_image_or_attachment(url)
        except InvalidNotebook:
            source = ""
        found = re.fullmatch(r"data:(image/[\w.+-]+);base64,(.+)", source, re.DOTALL)
        return self.kept.picture(found[2], found[1], text) if found else f"[picture: {escape(text)}]"

    def inline_math(self, body):
        return self.kept.hold(formula(body))

    def block_math(self, body):
        return self.kept.hold(formula(body, block=True))

    def latex_environment(self, name, body):
        return self.kept.hold(formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True))


class _Exporter(HTMLExporter):
    """nbconvert's exporter for the body of a notebook: prose and outputs, no code."""

    kept, chapters = None, ()  # of the section that is converted

    @jinja2.pass_context
    def markdown2html(self, context, source):
        """Markdown to HTML by our renderer."""
        attachments = context.get("cell", {}).get("attachments", {})
        prose = _Prose(self.kept, self.chapters, escape=False, attachments=attachments)
        return MarkdownWithMath(renderer=prose).render(source)


@functools.cache
def exporter():
    """Made once: its templates take longer than a chapter."""
    return _Exporter(template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)


def _leads(url):
    """May a link stay? Within the page, or to the web; a file beside the notebook is not beside the page."""
    return bool(re.match(r"(https?://|mailto:|#)", url))


_TAGS = set(
    "a abbr b blockquote br code dd del details div dl dt em h3 h4 h5 h6 hr i kbd li ol p pre s span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul".split()
)


def _attribute(tag, name, value):
    """Which attributes stay."""
    if tag == "a" and name == "href":
        return _leads(value)
    return name in ("class", "title") or (tag in ("td", "th") and name in ("colspan", "rowspan"))


def clean(html):
    """HTML without anything that runs, loads or leaves its box; tables scroll in boxes of their own."""
    if re.search(r"<(script|style|iframe|object|template)", html, re.IGNORECASE):
        soup = bs4.BeautifulSoup(html, "html.parser")
        for tag in soup(["script", "style", "iframe", "object", "template"]):
            tag.decompose()
        html = str(soup)
    html = bleach.clean(html, tags=_TAGS, attributes=_attribute, strip=True)
    return re.sub(r"(<table.*?</table>)", r'<div class="scroll" tabindex="0">\1</div>', html, flags=re.DOTALL)


@functools.cache
def formula(latex, block=False):
    """A formula as a drawing in the colour of the text, or its source where matplotlib cannot set it.

    Parameters
    ----------
    latex : str
        Without the dollars.
    block : bool
        On a line of its own.

    Returns
    -------
    str
    """
    kind, size = "formula block" if block else "formula", 10.0
    plain = " ".join(latex.split())
    try:
        letters = FontProperties(family="STIXGeneral", size=size, math_fontfamily="stix")
        drawn = TextPath((0, 0), f"${_mathtext(plain)}$", prop=letters)
        width, height, depth = text_to_path.get_text_width_height_descent(f"${_mathtext(plain)}$", letters, ismath=True)
    except (ValueError, RuntimeError):
        return f'<code class="{kind}">{escape(plain)}</code>'
    box = f"0 {-(height - depth):.2f} {width:.2f} {height:.2f}"
    where = f"width:{width / size:.2f}em;height:{height / size:.2f}em;vertical-align:{-depth / size:.2f}em"
    return (
        f'<span class="{kind}"><svg role="img" aria-label="{escape(plain)}" viewBox="{box}" style="{where}">'
        f'<path d="{_drawing(drawn)}"/></svg></span>'
    )


def _mathtext(latex):
    """The few words of LaTeX that matplotlib spells differently."""
    latex = re.sub(r"\\[bB]igg?[lrm]?(?![A-Za-z])", "", latex)  # it has no sizes between one and \left
    latex = re.sub(r"\\mathbb\{1\}", r"\\mathbf{1}", latex)
    latex = re.sub(r"\\text\{([^{}]*)\}", lambda found: r"\mathrm{" + found[1].replace(" ", r"\ ") + "}", latex)
    latex = re.sub(r"\\t?frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}", latex.replace(r"\!", "").replace(r"\tfrac", r"\frac"))
    for short, long in (("dots", "ldots"), ("ge", "geq"), ("le", "leq"), ("to", "rightarrow")):
        latex = re.sub(rf"\\{short}(?![A-Za-z])", rf"\\{long}", latex)
    return latex


def _drawing(path):
    """A matplotlib path in the letters of SVG, whose y runs downwards."""
    letters = {path.MOVETO: "M", path.LINETO: "L", path.CURVE3: "Q", path.CURVE4: "C", path.CLOSEPOLY: "Z"}
    steps = []
    for points, code in path.iter_segments(simplify=False, curves=True):
        numbers = [] if code == path.CLOSEPOLY else points.reshape(-1, 2) * (1, -1)
        steps.append(letters[code] + " ".join(f"{x:.2f} {y:.2f}" for x, y in numbers))
    return "".join(steps)


def picture(data, kind, alt):
    """A picture as HTML that holds it; large ones are scaled, and what a program wrote into the file is left out.

    Parameters
    ----------
    data : bytes
    kind : str
        "image/png", "image/jpeg" or "image/svg+xml".
    alt : str

    Raises
    ------
    OSError
        If the file is no picture.
    """
    size = ""
    if kind == "image/svg+xml":
        data = without_names(data.decode()).encode()
    else:
        with Picture.open(io.BytesIO(data)) as opened:
            opened.load()
            if (
                opened.width > WIDEST
                or len(data) > FEW_BYTES
                or set(opened.info) & {"exif", "comment", *_texts(opened)}
            ):
                data, kind = _smaller(opened), "image/png"
        with Picture.open(io.BytesIO(data)) as opened:
            size = f' width="{opened.width}" height="{opened.height}"'
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return f'<span class="picture"><img src="{source}" alt="{escape(without_names(alt))}"{size}></span>'


def _texts(opened):
    """Names of the texts in a PNG."""
    return getattr(opened, "text", None) or {}


def _smaller(opened):
    """A picture of at most WIDEST pixels, of few colours where it would stay large, without texts."""
    plain = Picture.new("RGB", opened.size, "white")
    with_alpha = opened.convert("RGBA")
    plain.paste(with_alpha, mask=with_alpha.getchannel("A"))
    plain.thumbnail((WIDEST, 4 * WIDEST))
    small = io.BytesIO()
    plain.save(small, format="png", optimize=True)
    if small.tell() > FEW_BYTES:
        small = io.BytesIO()
        few = plain.quantize(N_COLOURS, method=Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE)
        few.save(small, format="png", optimize=True)
    return small.getvalue()
