"""The package that ``twisted.plugin`` searches for runtimes and authenticators.

Third parties put modules into a directory ``ploinky/plugins/`` of their own
distribution, without an ``__init__.py``; the built-in ones register in
`ploinky.plugins.builtin` the same way.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
