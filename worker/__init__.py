"""What captions: pipeline, decode processes, batcher, Celery tasks, embedded runner."""
