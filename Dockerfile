# An image with Lab and its environments, for the CPU:
#   docker build -t lab .
#   docker run --rm -v "$PWD/outputs:/home/lab/outputs" lab algo=ppo env=cartpole
# For a GPU build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128, and run with --gpus all.
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# git for the record of code; a C++ compiler for compiled steps; what Box2D and films are built and drawn with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git libegl1 libgl1 libosmesa6 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/lab
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch

COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY lab lab
RUN pip install --no-cache-dir --constraint constraints.txt '.[video,box2d,mujoco,atari]'

# Runs are written by a user of its own, into a folder that the host gives.
RUN useradd --create-home --uid 1000 lab && mkdir /home/lab/outputs && chown lab /home/lab/outputs
USER lab
WORKDIR /home/lab
ENTRYPOINT ["lab"]
CMD ["--help"]
