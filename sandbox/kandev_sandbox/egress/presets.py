"""Names that belong together, under one word: `@pypi`, `@npm`, `@anthropic`… Data only.

What a preset holds lets a program *fetch and publish* there: a proxy sees names, not what is said to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # package registries
        "pypi": ("pypi.org:443", "files.pythonhosted.org:443"),
        "conda": ("conda.anaconda.org:443", "repo.anaconda.com:443"),
        "npm": ("registry.npmjs.org:443",),
        "yarn": ("registry.yarnpkg.com:443", "registry.npmjs.org:443", "repo.yarnpkg.com:443"),
        "crates": ("crates.io:443", "index.crates.io:443", "static.crates.io:443"),
        "rustup": ("static.rust-lang.org:443",),
        "go": ("proxy.golang.org:443", "sum.golang.org:443", "go.dev:443", "dl.google.com:443"),
        "rubygems": ("rubygems.org:443", "index.rubygems.org:443"),
        "maven": ("repo.maven.apache.org:443", "repo1.maven.org:443", "plugins.gradle.org:443"),
        "nuget": ("api.nuget.org:443", "www.nuget.org:443"),
        "packagist": ("packagist.org:443", "repo.packagist.org:443"),
        "debian": ("deb.debian.org", "security.debian.org"),
        "ubuntu": ("archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com"),
        "alpine": ("dl-cdn.alpinelinux.org",),
        # code
        "github": (
            "github.com:443",
            "api.github.com:443",
            "codeload.github.com:443",
            "raw.githubusercontent.com:443",
            "objects.githubusercontent.com:443",
            "release-assets.githubusercontent.com:443",
            "github-cloud.githubusercontent.com:443",
        ),
        "gitlab": ("gitlab.com:443",),
        "bitbucket": ("bitbucket.org:443", "api.bitbucket.org:443"),
        "codeberg": ("codeberg.org:443",),
        # models
        "anthropic": ("api.anthropic.com:443",),
        "openai": ("api.openai.com:443",),
        "google": ("generativelanguage.googleapis.com:443",),
        "mistral": ("api.mistral.ai:443",),
        "openrouter": ("openrouter.ai:443",),
        "deepseek": ("api.deepseek.com:443",),
        "groq": ("api.groq.com:443",),
        "xai": ("api.x.ai:443",),
        "huggingface": ("huggingface.co:443", "cdn-lfs.huggingface.co:443", "cdn-lfs.hf.co:443"),
    }
)

GIT_HOSTS = ("github.com", "gitlab.com", "bitbucket.org", "codeberg.org")


def preset_with(name: str, port: int) -> str | None:
    """The smallest preset that holds this name and port, as `@word`."""
    holding = [
        (len(entries), word)
        for word, entries in PRESETS.items()
        if f"{name}:{port}" in entries or (name in entries and port in (80, 443))
    ]
    return f"@{min(holding)[1]}" if holding else None
