# An image for each of the two servers of docs/guide/server.md, which says how to build and run them.
ARG BASE=python:3.12-slim
FROM ${BASE} AS build
# TORCH: the release of PyTorch. The server in C++ serves files that this release exported.
# PIP_INDEX_URL, PIP_EXTRA_INDEX_URL: where pip looks for packages; PyTorch's own index has builds without CUDA, which are much smaller.
ARG TORCH=torch>=2.10
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PATH=/opt/dcrnn_fast/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ make && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/dcrnn_fast && pip install "$TORCH"
COPY . /src

FROM build AS build-python
RUN pip install "/src[serve]"

FROM build AS build-cpp
RUN pip install numpy libboost-headers
RUN cmake -S /src -B /opt/server -DPython3_EXECUTABLE=/opt/dcrnn_fast/bin/python -DDCRNN_FAST_SERVER=ON -DDCRNN_FAST_TESTS=OFF \
    -DDCRNN_FAST_CUDA=OFF && cmake --build /opt/server -j "$(nproc)"
# The program finds PyTorch's libraries, and CUDA's where PyTorch has it, in these folders.
RUN mkdir /run-time && cp -r --parents /opt/server/dcrnn_fast_server /opt/server/*.so \
    $(find /opt/dcrnn_fast/lib -path '*/site-packages/torch/lib' -o -path '*/site-packages/nvidia') /run-time

FROM ${BASE} AS cpp
COPY --from=build-cpp /run-time /
RUN /opt/server/dcrnn_fast_server --help
USER nobody
EXPOSE 8000
ENTRYPOINT ["/opt/server/dcrnn_fast_server", "--host", "0.0.0.0"]

FROM ${BASE} AS python
COPY --from=build-python /opt/dcrnn_fast /opt/dcrnn_fast
ENV OMP_NUM_THREADS=1
USER nobody
EXPOSE 8000
ENTRYPOINT ["/opt/dcrnn_fast/bin/dcrnn-fast", "serve", "--host", "0.0.0.0"]
