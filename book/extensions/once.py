"""Sphinx adds thebe's script to a page twice, which is an error in the browser's console; no page here runs code, so it is left out."""


def leave_out(app, page, template, context, doctree):
    context["script_files"] = [script for script in context.get("script_files", []) if "thebe" not in str(getattr(script, "filename", script))]


def setup(app):
    app.connect("html-page-context", leave_out, priority=1000)
    return {"parallel_read_safe": True}
