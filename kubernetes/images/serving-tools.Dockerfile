# The commands around serving, `segpipe serve`, `predict` and `release`, without TFX and Beam.
# The context is the repository's root; `make images` builds it.
FROM python:3.10.16-slim-bookworm AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/
RUN pip install --no-cache-dir --requirement requirements/bootstrap.txt
# The lock pins every version; serving.in says which of its packages serving needs.
COPY requirements/segpipe.txt requirements/serving.in requirements/
# A container cannot keep the bytecode it compiles, so every start would compile all that it imports.
ENV VIRTUAL_ENV=/opt/segpipe UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN uv venv --no-project $VIRTUAL_ENV \
    && uv pip install --no-cache --requirement requirements/serving.in

FROM python:3.10.16-slim-bookworm AS serving-tools
RUN useradd --uid 1000 --user-group --create-home segpipe
COPY --from=build /opt/segpipe /opt/segpipe
COPY kubernetes/images/segpipe /usr/local/bin/segpipe
COPY components /app/components
COPY trainer /app/trainer
COPY serving /app/serving
COPY pipeline /app/pipeline
ENV PATH=/opt/segpipe/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/segpipe
ENTRYPOINT ["segpipe"]
CMD ["--help"]
