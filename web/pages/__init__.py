"""The tabs, a file each: ``build(studio)`` is called within its ``gr.Tab``, ``routes(studio)``, where there is one,
gives the HTTP routes that it needs beside Gradio's.
"""
