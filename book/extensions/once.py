"""Leaves scripts out of every page.

Thebe's: Sphinx adds them twice, an error in the browser's console, and no page here
runs code. Font Awesome's, half a megabyte before the page shows: its style sheet draws
the same icons from its fonts, which need not be loaded ahead of the text either.
"""
import re
from pathlib import Path

ICONS = re.compile(r"<script[^>]*/fontawesome/[^>]*></script>"
                   r'|<link rel="preload"[^>]*/fontawesome/[^>]*>')


def leave_out(app, page, template, context, doctree):
    def of_thebe(script) -> bool:
        address = str(getattr(script, "filename", script))
        return "thebe" in (address + str(getattr(script, "attributes", ""))).lower()

    scripts = context.get("script_files", [])
    context["script_files"] = [one for one in scripts if not of_thebe(one)]


def leave_out_icons(app, error):
    if app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        path.write_text(ICONS.sub("", page), encoding="utf-8")


def setup(app):
    app.connect("html-page-context", leave_out, priority=1000)
    app.connect("build-finished", leave_out_icons)
    return {"parallel_read_safe": True}
