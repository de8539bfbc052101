"""Leaves thebe's scripts out of every page.

Sphinx adds them twice, an error in the browser's console, and no page here runs code.
"""


def leave_out(app, page, template, context, doctree):
    def of_thebe(script) -> bool:
        address = str(getattr(script, "filename", script))
        return "thebe" in (address + str(getattr(script, "attributes", ""))).lower()

    scripts = context.get("script_files", [])
    context["script_files"] = [one for one in scripts if not of_thebe(one)]


def setup(app):
    app.connect("html-page-context", leave_out, priority=1000)
    return {"parallel_read_safe": True}
