"""Write the server's OpenAPI document, from which the page's request types are made: python web/make_openapi.py."""

import json
from pathlib import Path

from lensing.server.app import make_app

if __name__ == "__main__":
    document = json.dumps(make_app(None).openapi(), indent=1)
    (Path(__file__).parent / "openapi.json").write_text(document + "\n", encoding="utf-8")
