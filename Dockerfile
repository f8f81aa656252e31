# qwen3asr in a container: by default the server, on port 8000.
#   docker build -t qwen3asr .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/models:/models:ro" qwen3asr serve --host 0.0.0.0 -m NAME
#   docker run --rm -v "$PWD/audio:/audio:ro" qwen3asr transcribe /audio/speech.wav
#   docker run --rm -v "$PWD/models:/models:ro" -v "$PWD/audio:/audio:ro" qwen3asr transcribe -m NAME /audio/speech.wav
# NAME is /models/NAME.bin; without -m the built-in mini model is at work.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Compilers at a time; empty: one for each processor.
ARG BUILD_THREADS=
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/qwen3asr && /opt/qwen3asr/bin/pip install --no-cache-dir ".[bench,server]"

FROM ${PYTHON_IMAGE}
# Defaults of the image; `docker run -e` changes them. Empty: all processors, the model's context.
ARG INFERENCE_THREADS=
ARG CONTEXT_LENGTH=
ENV INFERENCE_THREADS=${INFERENCE_THREADS} CONTEXT_LENGTH=${CONTEXT_LENGTH}
ENV PATH=/opt/qwen3asr/bin:${PATH}
COPY --from=build /opt/qwen3asr /opt/qwen3asr
RUN useradd --uid 10001 --create-home asr && mkdir /models /results && chown asr /results
# Model names are looked up in models/, results written to results/, both under the working directory.
WORKDIR /
USER asr
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["qwen3asr"]
CMD ["serve", "--host", "0.0.0.0"]
