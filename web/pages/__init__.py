"""The tabs, one file each.

``build(jobs_service, panels)`` is called within its ``gr.Tab``; ``routes(jobs_service)``, where there is one, returns
the HTTP routes that the tab needs beside Gradio's.
"""
from ..core import quick_gradio

quick_gradio.load()  # before one of them, or what serves them, does
