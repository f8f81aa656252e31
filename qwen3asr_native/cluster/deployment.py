"""The server's app as a deployment of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..extras import needed

if TYPE_CHECKING:
    from ..server import Settings


def application(
    model: str | None = None, *, replicas: int = 1, threads: int = 2, settings: Settings | None = None
) -> Any:
    """An application for ``ray.serve.run``: the paths of ``qwen3asr serve``, one model in each replica.

    Args:
        model: As for ``Model``; every machine must find it.
        replicas: How many models.
        threads: Processors of each.
        settings: Limits, key, queue: see ``server.Settings``; host and port are Ray Serve's.

    Raises:
        ArgumentError: Ray Serve is not installed.
    """
    with needed("cluster"):
        from ray import serve
    from ..server import Settings

    chosen = settings or Settings(host="0.0.0.0")

    def build() -> Any:
        from ..model import Model
        from ..server import create_app

        return create_app(Model(model, threads=threads), chosen)

    @serve.ingress(build)
    class Server:
        pass

    deployment = serve.deployment(
        Server,
        name="qwen3asr",
        num_replicas=replicas,
        max_ongoing_requests=2 * (chosen.active + chosen.queue),
        ray_actor_options={"num_cpus": threads},
    )
    return deployment.bind()
