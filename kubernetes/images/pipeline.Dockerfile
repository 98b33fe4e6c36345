# The pipeline and the command `segpipe`, for CPUs (target pipeline), NVIDIA GPUs (target pipeline-gpu) and the workers of a
# remote Beam runner (target beam-worker).
# The build context is the repository's root; `make images` builds all. Only the last layers change with the code.
FROM python:3.13.16-slim-trixie AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/bootstrap.txt
COPY pyproject.toml ./
COPY requirements/current.txt requirements/
# Compile the bytecode now: a container cannot keep what it compiles, so every start would compile all imports again.
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

# CUDA and cuDNN come from NVIDIA's wheels, as TensorFlow's extra `and-cuda` requires them, not from a CUDA base image.
# So their versions are locked, and the layers below are those of the CPU image. The node has the driver.
FROM build AS cuda
RUN uv pip install --no-cache --require-hashes --constraints requirements/current.txt \
        --build-constraints requirements/current.txt --requirements pyproject.toml --extra gpu \
    && mkdir /opt/cuda \
    && mv $VIRTUAL_ENV/lib/python3.13/site-packages/nvidia* /opt/cuda

FROM pipeline AS pipeline-gpu
COPY --from=cuda /opt/cuda /opt/segpipe/lib/python3.13/site-packages
# TensorFlow 2.21 finds these libraries and ptxas beside its own folder, except cuSOLVER: the search path in
# libtensorflow_framework.so.2 lacks it, and if one library is missing, TensorFlow registers no GPU. segpipe's own
# processes load it themselves (components/tensorflow_start.py); those that TFX starts on Vertex AI do not.
ENV LD_LIBRARY_PATH=/opt/segpipe/lib/python3.13/site-packages/nvidia/cusolver/lib

# Runners start a worker by Beam's entry point, which is of the version that the lock pins. It asks pip whether Beam is
# installed: the base image has pip, and the environment sees the base's packages by this line of its configuration.
# Without the variable, the entry point would make an environment of its own, which has no packages of this one.
FROM apache/beam_python3.13_sdk:2.77.0 AS beam
FROM build AS with-pip
RUN sed --in-place 's/^include-system-site-packages = false$/include-system-site-packages = true/' $VIRTUAL_ENV/pyvenv.cfg

FROM pipeline AS beam-worker
COPY --from=with-pip /opt/segpipe/pyvenv.cfg /opt/segpipe/pyvenv.cfg
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]
CMD []
