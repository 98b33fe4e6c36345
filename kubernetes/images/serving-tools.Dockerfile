# The serving commands `segpipe serve`, `predict` and `release`, without TFX and Beam.
# The build context is the repository's root; `make images` builds it. A change of the code only rebuilds the last layers.
FROM python:3.13.16-slim-trixie AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/bootstrap.txt
COPY pyproject.toml ./
COPY requirements/current.txt requirements/
# Compile the bytecode at build time. Otherwise every container would compile all imports again at its start.
ENV VIRTUAL_ENV=/opt/segpipe UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN uv venv --no-project $VIRTUAL_ENV \
    && uv pip install --no-cache --require-hashes --constraints requirements/current.txt \
        --build-constraints requirements/current.txt --requirements pyproject.toml --extra serving

FROM python:3.13.16-slim-trixie AS serving-tools
RUN useradd --uid 1000 --user-group --create-home segpipe
COPY --from=build /opt/segpipe /opt/segpipe
COPY kubernetes/images/segpipe kubernetes/images/tensorflow_model_server /usr/local/bin/
COPY components /app/components
COPY trainer /app/trainer
COPY serving /app/serving
COPY pipeline /app/pipeline
RUN python -m compileall -q /app
# The loopback address of a container is not reachable from outside it. tensorflow_model_server runs `segpipe serve`.
ENV PATH=/opt/segpipe/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SEGPIPE_HOST=0.0.0.0 \
    SEGPIPE_ENGINE=local
USER 1000:1000
WORKDIR /home/segpipe
ENTRYPOINT ["segpipe"]
CMD ["--help"]
