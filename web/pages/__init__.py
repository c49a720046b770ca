"""The tabs, one file each.

``build(jobs_service, panels)`` is called within its ``gr.Tab``; ``routes(jobs_service)``, where there is one, returns
the HTTP routes that the tab needs beside Gradio's.
"""
