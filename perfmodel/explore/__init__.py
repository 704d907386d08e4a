"""A page to explore a decision in, and the same as an HTTP service for controllers.

`service` and `serve` need FastAPI, uvicorn and plotly (``pip install "draftplan[explore]"``).
"""
