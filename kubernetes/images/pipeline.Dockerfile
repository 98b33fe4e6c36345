# The pipeline and the command `segpipe`. Targets: pipeline for CPUs, pipeline-gpu for NVIDIA GPUs, and beam-worker for the
# workers of a remote Beam runner.
# The build context is the repository's root; `make images` builds all targets. A change of the code only rebuilds the last
# layers.
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
        --build-constraints requirements/current.txt --requirements pyproject.toml --extra pipeline --extra kubeflow --extra mlflow

FROM python:3.13.16-slim-trixie AS pipeline
RUN useradd --uid 1000 --user-group --create-home segpipe
COPY --from=build /opt/segpipe /opt/segpipe
COPY kubernetes/images/segpipe /usr/local/bin/segpipe
COPY components /app/components
COPY trainer /app/trainer
COPY serving /app/serving
COPY pipeline /app/pipeline
RUN python -m compileall -q /app
# The loopback address of a container is not reachable from outside it.
ENV PATH=/opt/segpipe/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SEGPIPE_HOST=0.0.0.0
USER 1000:1000
WORKDIR /home/segpipe
ENTRYPOINT ["segpipe"]
CMD ["--help"]

# CUDA and cuDNN come from NVIDIA's wheels (TensorFlow's extra `and-cuda`), not from a CUDA base image. So their versions are
# locked, and the image reuses the layers of the CPU image. The node provides the driver.
FROM build AS cuda
RUN uv pip install --no-cache --require-hashes --constraints requirements/current.txt \
        --build-constraints requirements/current.txt --requirements pyproject.toml --extra gpu \
    && mkdir /opt/cuda \
    && mv $VIRTUAL_ENV/lib/python3.13/site-packages/nvidia* /opt/cuda

FROM pipeline AS pipeline-gpu
COPY --from=cuda /opt/cuda /opt/segpipe/lib/python3.13/site-packages
# TensorFlow 2.21 finds these libraries and ptxas next to its own folder, except cuSOLVER, which is not in the search path of
# libtensorflow_framework.so.2. If one library is missing, TensorFlow registers no GPU. segpipe's processes load cuSOLVER
# themselves (components/tensorflow_start.py), but processes that TFX starts on Vertex AI do not.
ENV LD_LIBRARY_PATH=/opt/segpipe/lib/python3.13/site-packages/nvidia/cusolver/lib

# Runners start a worker with Beam's entry point, in the version of the lock file. The entry point calls pip to check that
# Beam is installed. The base image has pip, and this line of pyvenv.cfg makes it available in the environment. Without
# RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT, the entry point would create a new environment without these packages.
FROM apache/beam_python3.13_sdk:2.77.0 AS beam
FROM build AS with-pip
RUN sed --in-place 's/^include-system-site-packages = false$/include-system-site-packages = true/' $VIRTUAL_ENV/pyvenv.cfg

FROM pipeline AS beam-worker
COPY --from=with-pip /opt/segpipe/pyvenv.cfg /opt/segpipe/pyvenv.cfg
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]
CMD []
