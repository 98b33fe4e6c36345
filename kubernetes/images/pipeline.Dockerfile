# The pipeline and the command `segpipe`, for CPUs (target pipeline) and NVIDIA GPUs (target pipeline-gpu).
# The context is the repository's root; `make images` builds both. Only the last layers change with the code.
FROM python:3.10.16-slim-bookworm AS build
# Two locked packages come as C++ sources; the compiler stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements/bootstrap.txt requirements/
RUN pip install --no-cache-dir --requirement requirements/bootstrap.txt
COPY requirements/segpipe.txt requirements/edges.txt requirements/
# A container cannot keep the bytecode it compiles, so every start would compile all that it imports.
ENV VIRTUAL_ENV=/opt/segpipe UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
RUN uv venv --no-project $VIRTUAL_ENV \
    && uv pip sync --no-cache requirements/segpipe.txt \
    && uv pip install --no-cache --no-deps --requirement requirements/edges.txt

FROM python:3.10.16-slim-bookworm AS pipeline
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

# CUDA and cuDNN come as the wheels that this TensorFlow names in its extra and-cuda, rather than from a CUDA base image:
# their versions are the ones it was built with, the layers below are those of the CPU image, and no second system has to
# be patched. The driver is the node's.
FROM build AS cuda
COPY requirements/gpu.txt requirements/
RUN uv pip install --no-cache --no-deps --target /opt/cuda --requirement requirements/gpu.txt

FROM pipeline AS pipeline-gpu
COPY --from=cuda /opt/cuda /opt/cuda
# TensorFlow 2.16 does not find the wheels' libraries by itself.
ENV LD_LIBRARY_PATH=/opt/cuda/nvidia/cublas/lib:/opt/cuda/nvidia/cuda_cupti/lib:/opt/cuda/nvidia/cuda_nvrtc/lib:/opt/cuda/nvidia/cuda_runtime/lib:/opt/cuda/nvidia/cudnn/lib:/opt/cuda/nvidia/cufft/lib:/opt/cuda/nvidia/curand/lib:/opt/cuda/nvidia/cusolver/lib:/opt/cuda/nvidia/cusparse/lib:/opt/cuda/nvidia/nccl/lib:/opt/cuda/nvidia/nvjitlink/lib \
    PATH=/opt/cuda/nvidia/cuda_nvcc/bin:$PATH \
    XLA_FLAGS=--xla_gpu_cuda_data_dir=/opt/cuda/nvidia/cuda_nvcc \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
