# The page in a container: docs/serving.md. For a GPU: --build-arg DEVICE=gpu, and `docker run --gpus all`.
FROM python:3.12-slim-bookworm
ARG DEVICE=cpu

# OpenCV's shared libraries; everything else comes as wheels.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt constraints.txt ./
# torch's own index has a build without CUDA, a tenth of the size; PyPI's brings the CUDA libraries along.
RUN if [ "$DEVICE" = cpu ]; then \
        python -m pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu; \
    fi \
    && python -m pip install --no-cache-dir -r requirements.txt -c constraints.txt

COPY app.py README.md LICENSE ./
COPY assets assets
COPY spark3r spark3r
COPY viewer viewer

# Nobody's files but the downloads of /data and temporary ones are written; mount /data to keep downloads.
RUN useradd --create-home --uid 10001 spark3r \
    && mkdir /data \
    && chown spark3r /data
USER 10001
ENV HF_HOME=/data PYTHONUNBUFFERED=1

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://localhost:7860/health', timeout=9)"]
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0", "--health", "yes"]
