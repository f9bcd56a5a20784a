# The page in the browser, on the CPU; docs/app.md describes it.
#   docker build -t timbridge .
#   docker run --rm -p 127.0.0.1:7860:7860 timbridge
FROM python:3.12-slim

# Address of PyTorch's packages for CPUs, see pytorch.org; without it pip takes the build for NVIDIA GPUs, 2.7 GB.
ARG TORCH_INDEX=""
WORKDIR /app
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.11.0 torchaudio==2.11.0
COPY . .
RUN pip install --no-cache-dir -e ".[app]" && useradd --create-home visitor
USER visitor
EXPOSE 7860
# Further settings follow the image's name: docker run ... timbridge max_minutes=10
ENTRYPOINT ["python", "app.py", "host=0.0.0.0", "port=7860", "browser=false"]
