"""Sphinx adds thebe's scripts to a page twice, an error in the browser's console; no page here runs code, so they are left out."""


def leave_out(app, page, template, context, doctree):
    def of_thebe(script) -> bool:
        return "thebe" in (str(getattr(script, "filename", script)) + str(getattr(script, "attributes", ""))).lower()

    context["script_files"] = [script for script in context.get("script_files", []) if not of_thebe(script)]


def setup(app):
    app.connect("html-page-context", leave_out, priority=1000)
    return {"parallel_read_safe": True}
