"""A language model to ask: any server that speaks OpenAI's chat form, or a local Hugging Face model."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from typing import final

from lensing.errors import LensingError, UsageError
from lensing.model.run import Model

KEYS = ("LENSING_API_KEY", "OPENAI_API_KEY")  # environment variables that may hold the key
MOST = 1 << 22  # bytes of an answer


class Asker(ABC):
    """Something that answers a question in words."""

    name: str

    @abstractmethod
    def ask(self, system: str, user: str, *, tokens: int = 256) -> str:
        """Return the answer; LensingError where there is none."""


@final
class Endpoint(Asker):
    """A server with `/chat/completions` below `url` (http://127.0.0.1:8000/v1, say); nothing else is sent anywhere.

    The key is that of LENSING_API_KEY or OPENAI_API_KEY, if either is set. A busy or failing server is asked `tries`
    times.
    """

    def __init__(self, url: str, name: str, *, timeout: float = 120.0, tries: int = 3, wait: float = 1.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is no address of a server. Give one that begins with http:// or https://.")
        self.url, self.name = url.rstrip("/") + "/chat/completions", name
        self.timeout, self.tries, self.wait = timeout, tries, wait

    def ask(self, system: str, user: str, *, tokens: int = 256) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": self.name, "messages": messages, "max_tokens": tokens, "temperature": 0}
        headers = {"content-type": "application/json"}
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
        if key:
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        why = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    found = json.loads(answer.read(MOST))["choices"][0]["message"]["content"]
                    if not isinstance(found, str) or not found.strip():
                        raise LensingError(f"{self.url} answered without a word. Try another model.")
                    return found
            except urllib.error.HTTPError as error:
                why = f"status {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                why = str(getattr(error, "reason", error)) or type(error).__name__
        raise LensingError(f"{self.url} gave no answer ({why}). Is it running, and is {self.name!r} a model of it?")


@final
class Local(Asker):
    """A model that is loaded here; its chat template is used where it has one."""

    def __init__(self, model: Model) -> None:
        self.model, self.name = model, model.name

    def ask(self, system: str, user: str, *, tokens: int = 256) -> str:
        if getattr(self.model.tokenizer, "chat_template", None):
            prompt = self.model.encode_chat([{"role": "user", "content": f"{system}\n\n{user}"}])
            return self.model.generate(prompt, max_new_tokens=tokens).text[0]
        return self.model.generate(f"{system}\n\n{user}\n", max_new_tokens=tokens).text[0]
