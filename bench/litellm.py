"""The LiteLLM proxy as a reference: in a virtual environment of its own, because it pins other versions of everything.

It checks one key from memory and keeps nothing: no database, no budget, no count.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from bench.processes import READY_SECONDS, child, free_port

VERSION: Final = "1.106.2"
ANY_MODEL: Final = "words-*"
KEY: Final = f"sk-{secrets.token_hex(32)}"
"""What its callers send; it starts with no weaker one."""


def _home() -> Path:
    """Where the virtual environment is kept from one run to the next."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "flowstack-bench" / f"litellm-{VERSION}"


def install() -> Path:
    """Makes the virtual environment where there is none yet, which takes minutes; answers the proxy's program."""
    home = _home()
    ready = home / ".ready"
    if not ready.exists():
        print(f"Installing LiteLLM {VERSION} below {home.parent}, once.", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run(
            [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={VERSION}"], check=True
        )
        ready.touch()
    return home / "bin" / "litellm"


def _configuration(folder: Path, upstream_url: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        f'  - model_name: "{ANY_MODEL}"\n'
        "    litellm_params:\n"
        f'      model: "openai/{ANY_MODEL}"\n'
        f'      api_base: "{upstream_url}"\n'
        '      api_key: "sk-bench"\n'
    )
    return config


@asynccontextmanager
async def litellm_proxy(folder: Path, upstream_url: str) -> AsyncIterator[tuple[int, str]]:
    """Runs the proxy with one worker before the upstream; yields its process id and the URL of its completions."""
    program, config = install(), _configuration(folder, upstream_url)
    port = free_port()
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with child([str(program), *arguments], environment) as process:
        base = f"http://127.0.0.1:{port}"
        await asyncio.wait_for(_ready(f"{base}/health/liveliness", process), 2 * READY_SECONDS)
        yield process.pid, f"{base}/v1/chat/completions"


async def _ready(url: str, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"LiteLLM ended with code {process.returncode} instead of serving.")
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
