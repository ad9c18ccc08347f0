"""Which circuits suit a model and a number of parameters."""

from quanta_compiler.recommend.run import recommend

__all__ = ["recommend"]
